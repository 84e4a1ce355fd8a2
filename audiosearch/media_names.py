"""What files of sound are called: the one list of extensions."""

# `.ts` is missing on purpose: far more disks hold TypeScript than loose MPEG transport streams.
AUDIO_EXTENSIONS = (
    "3ga 8svx aa aac aax ac3 act adts aif aifc aiff alac amr ape apl au awb bwf caf dff dsf dss dts dtshd dvf eac3 "
    "flac gsm ircam kar m4a m4b m4p m4r mka mlp mogg mp1 mp2 mp3 mpa mpc mpga oga ogg oma opus paf qcp ra ram rf64 rmi "
    "sds sf shn sln snd spx svx tak thd tta voc vox vqf w64 wav wave weba wma wv xa"
)
VIDEO_EXTENSIONS = (
    "3g2 3gp 3gpp amv asf avi divx dv f4a f4v flv gxf ivf m1v m2t m2ts m2v m4v mj2 mjpeg mkv mov mp4 mpe mpeg mpg mts "
    "mxf nsv nut ogm ogv ogx qt rm rmvb roq swf tod vob webm wmv wtv y4m"
)
# MIDI (kar, rmi) is notes and no sound, y4m raw pictures: never a sound track.
MEDIA_EXTENSIONS = frozenset(f"{AUDIO_EXTENSIONS} {VIDEO_EXTENSIONS}".split()) - {"kar", "rmi", "y4m"}
