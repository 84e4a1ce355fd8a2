"""`python -m audiosearch`: the command line where no console script is on the path."""

from audiosearch.cli import main

if __name__ == "__main__":  # decode workers import this module again under another name
    main()
