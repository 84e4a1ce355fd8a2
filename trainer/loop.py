"""The training loop, top to bottom: data, model, stages, export.

    pairs ──> micro-batches ──model──> embeddings ──gather──> loss ──> gradient, summed over processes ──> AdamW

Everything a step depends on is in the checkpoint or a pure function of (recipe, step), so that a run killed anywhere
continues as if it had not been, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor

from audiosearch.errors import UsageError
from audiosearch.trainer import mining
from audiosearch.trainer.base import BaseSetup
from audiosearch.trainer.batch import PairBatch
from audiosearch.trainer.checkpoint import Checkpoints
from audiosearch.trainer.compute import Compute, Setup, precision
from audiosearch.trainer.corpus import prepare_corpus
from audiosearch.trainer.data import BatchSource, ManifestBatches, ahead
from audiosearch.trainer.losses import Temperature
from audiosearch.trainer.objectives import Objective
from audiosearch.trainer.recipe import Recipe, StageRecipe, find_recipe, load_recipe
from audiosearch.trainer.schedule import warmup_cosine
from audiosearch.trainer.scratch import ScratchSetup
from audiosearch.trainer.validation import HeldOut
from audiosearch.trainer.watch import LOG, CollapseGuard, Watch, stop_if_not_finite


def train(recipe_path: str, out_dir: str | None = None, *, resume: bool = False, overrides: Iterable[str] = ()) -> Path:
    """Run a recipe and write the finished checkpoint. Under `torchrun` every process calls this.

    Args:
        recipe_path: a YAML file or the name of a bundled recipe.
        out_dir: where the run lives (checkpoints, log, caches, exported model); default `runs/<name>`.
        resume: continue from the newest checkpoint found there; False refuses a folder that has one.
        overrides: `key=value`, put over the recipe's.

    Returns:
        The exported model's directory.

    Raises:
        UsageError: bad recipe, missing data, a checkpoint of another recipe or another base, a run in use.
        ModelError: the base cannot be found or does not load.
        AudioSearchError: the loss is not a number, the model collapsed, or a checkpoint cannot be written.
    """
    from audiosearch.trainer.export import export_run

    path = find_recipe(recipe_path)
    recipe = load_recipe(path, overrides)
    out = Path(out_dir or Path("runs") / recipe.name)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    watch = Watch(out, writes=accelerator.is_main_process)
    with _exclusive(out, accelerator), contextlib.closing(watch):
        checkpoints = Checkpoints(out / "checkpoints", recipe.keep_checkpoints)
        state = checkpoints.load_newest(recipe.to_dict(), watch.say)
        if state is not None and not resume:
            raise UsageError(f"{out}: a run is already there; add --resume to continue it, or choose another --out")
        with accelerator.main_process_first():  # the others find its caches
            setup = set_up(recipe, path.parent, out, accelerator.device, watch)
        run = Run(setup, out, accelerator, watch, HeldOut.prepare(recipe.data, path.parent, setup.prompts, watch.say))
        if state is not None:
            run.load(state)
        elif accelerator.is_main_process:
            (out / LOG).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        for number, stage in enumerate(recipe.stages):
            run.stage(number, stage)
        watch.close()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            best = checkpoints.best()
            export_run(run, out, best, watch.say)
        accelerator.wait_for_everyone()
    return out / ("model" if recipe.lora is None or recipe.export_merged else "adapter")


def set_up(recipe: Recipe, beside: Path, out: Path, device: torch.device, watch: Watch) -> Setup:
    """Check the data, make or load the model; says what is trained. Raises as `train` does."""
    corpus = prepare_corpus(recipe.data, beside, out, watch.say)
    setup: Setup
    if recipe.scratch is not None:
        setup = ScratchSetup.prepare(recipe, corpus, beside, out, watch.say)
    else:
        dtype = torch.bfloat16 if precision(recipe, device) is not None else torch.float32
        setup = BaseSetup.prepare(recipe, corpus, beside, out, dtype, watch.say)
    watch.say(f"training {setup.trainable}")
    return setup


class Run:
    """Model, optimiser, temperature, averaged weights and position of one training run."""

    def __init__(
        self, setup: Setup, out: Path, accelerator: Accelerator, watch: Watch, held_out: HeldOut | None = None
    ) -> None:
        self.setup, self.out, self.accelerator, self.watch, self.held_out = setup, out, accelerator, watch, held_out
        self.recipe, self.device = setup.recipe, accelerator.device
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.compute = Compute(setup, accelerator)  # puts the model where it is trained
        self.model = setup.model
        self.temperature = Temperature(self.recipe.loss.initial_tau).to(self.device)
        self.checkpoints = Checkpoints(out / "checkpoints", self.recipe.keep_checkpoints)
        # What is saved: of a base only what is trained, of a model from nothing all of it.
        named = self.model.state_dict() if self.recipe.lora is None else dict(self.model.named_parameters())
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self.kept = {name: t.detach() for name, t in named.items() if self.recipe.lora is None or name in trained}
        self.average = {name: t.clone() for name, t in self.kept.items()} if self.recipe.ema_decay else {}
        self.optimizer: torch.optim.AdamW | None = None
        self.number, self.step = 0, 0
        self.history: list[dict[str, float | str]] = []
        self.neighbours: Tensor | None = None
        self._pending: dict[str, Any] | None = None

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything the loop owns."""
        assert self.optimizer is not None
        return {
            "recipe": self.recipe.to_dict(),
            "base": self.setup.identity,
            "stage": self.number,
            "stage_name": self.recipe.stages[self.number].name,
            "step": self.step,
            "weights": self.kept,
            "average": self.average,
            "temperature": self.temperature.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "neighbours": self.neighbours,
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go to where a checkpoint was. Raises UsageError if its base was another."""
        if state["base"] != self.setup.identity:
            raise UsageError(
                f"{self.out}: the run was begun on another base (fingerprint {state['base'][:12]}, now "
                f"{self.setup.identity[:12]}): give the old one, or choose another --out"
            )
        self.number, self.step = state["stage"], state["step"]
        self.load_weights(state["weights"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.temperature.load_state_dict(state["temperature"])
        self.neighbours, self.history = state["neighbours"], state["history"]
        self._pending = state["optimizer"]
        if self.accelerator.is_main_process:  # without the lines of steps that will be done again
            lines = "".join(json.dumps(line) + "\n" for line in self.history)
            (self.out / LOG).write_text(lines, encoding="utf-8")

    def load_weights(self, stored: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.kept.items():
                value.copy_(stored[name])

    # -- the loop ------------------------------------------------------------------------------------------------

    def stage(self, number: int, stage: StageRecipe) -> None:
        """Run one stage to its end, from wherever the state says."""
        if number < self.number:
            return
        if number > self.number:
            self.number, self.step, self.neighbours, self._pending = number, 0, None, None
        if stage.batch_size % self.world_size:
            raise UsageError(
                f"stages.{number}.batch_size is {stage.batch_size}: not a multiple of {self.world_size} processes"
            )
        self.optimizer = self._optimizer(stage)
        if self._pending is not None:
            self.optimizer.load_state_dict(self._pending)
            self._pending = None
        if self.step == 0 and stage.initial_tau is not None:
            self.temperature.reset(stage.initial_tau)
        objective = self.setup.objective(stage, self.temperature, self.device)
        source = self.setup.batches(stage, number, self.rank, self.world_size)
        self.setup.train_mode()
        self.compute.frozen_sound = self.setup.frozen_sound or not stage.sound_rate
        guard = CollapseGuard(self.out, after=stage.warmup_steps)
        self.watch.start(f"{self.recipe.name} {stage.name}", self.step, stage.steps, self._steps_before(number))
        while self.step < stage.steps:
            last = self._mine(source, stage)
            for step, batch in ahead(source, self.step, last, self._workers()):
                self._one_step(step, stage, objective, batch, guard)

    def _one_step(
        self, step: int, stage: StageRecipe, objective: Objective, batch: PairBatch, guard: CollapseGuard
    ) -> None:
        assert self.optimizer is not None
        where = f"{stage.name} step {step}"
        for warning in batch.warnings:
            self.watch.say(f"{where}: {warning}; another clip was taken in its place")
        rate = warmup_cosine(
            step,
            steps=stage.steps,
            warmup_steps=stage.warmup_steps,
            peak=stage.learning_rate,
            final=stage.final_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        torch.manual_seed(_seed(self.recipe.seed, self.number, step, self.rank))
        self.optimizer.zero_grad(set_to_none=True)
        loss, report, embeddings = self.compute.gradient(batch, objective, stage.micro_batch_size)
        stop_if_not_finite("loss", loss, where=where, out=self.out)
        norm = torch.nn.utils.clip_grad_norm_(self._trained(), stage.gradient_clip)
        stop_if_not_finite("gradient", norm, where=where, out=self.out)
        report |= guard.look(embeddings, step, where)
        self.optimizer.step()
        self._average()
        self.step = step + 1
        self.watch.step(stage.batch_size)
        if self.step % self.recipe.log_every_steps == 0 or self.step == stage.steps:
            line = {"loss": loss.item(), **report, "rate": rate, "gradient_norm": norm.item()}
            self.history.append(self.watch.log(stage.name, self.step, line))
        self._keep(stage)

    # -- one step's parts ----------------------------------------------------------------------------------------

    def _trained(self) -> list[Tensor]:
        parameters = [*self.model.parameters(), *self.temperature.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]

    def _optimizer(self, stage: StageRecipe) -> torch.optim.AdamW:
        """AdamW; no weight decay on vectors (norms, biases, tau)."""
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in [*self.model.named_parameters(), *self.temperature.named_parameters()]:
            if not parameter.requires_grad:
                continue
            rate = 1.0
            if name.startswith(("decoder.", "projection.")):
                rate = stage.decoder_rate
            elif name.startswith(("audio_encoder.", "audio_projector.")):
                rate = stage.sound_rate
            decay = stage.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": items, "rate": rate, "weight_decay": decay} for (rate, decay), items in groups.items()],
            lr=stage.learning_rate,
            betas=(stage.betas[0], stage.betas[1]),
        )

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at the start of a stage, so that the average does not drag its first weights along.
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.average.items():
            if value.dtype.is_floating_point:
                value.lerp_(self.kept[name], 1 - decay)

    # -- now and then --------------------------------------------------------------------------------------------

    def _keep(self, stage: StageRecipe) -> None:
        """Measure held-out retrieval and write a checkpoint where the recipe says so, and at a stage's end."""
        ended = self.step == stage.steps
        measured = None
        self.watch.pause()
        if (
            self.held_out is not None
            and stage.objective == "pairs"
            and (ended or self.step % self.recipe.evaluate_every_steps == 0)
        ):
            with self._averaged():
                figures = self.held_out.measure(self.compute, stage.micro_batch_size or 32)
            measured = figures["score"]
            self.history.append(self.watch.held_out(stage.name, self.step, figures))
        if self.accelerator.is_main_process and (
            ended or measured is not None or self.step % self.recipe.checkpoint_every_steps == 0
        ):
            self.checkpoints.save(self.state(), score=measured)
        self.watch.go_on()

    def _mine(self, source: BatchSource, stage: StageRecipe) -> int:
        """Renew the hard negatives if it is time; the step up to which they hold."""
        hard = self.recipe.hard_negatives
        if not hard.share or not isinstance(source, ManifestBatches):
            return stage.steps
        if self.step and self.step % hard.every_steps == 0:
            self.watch.pause()
            found = mining.neighbours(
                self.compute,
                source,
                hard,
                stage.micro_batch_size or 32,
                step=self.step,
                margin=self.recipe.loss.false_negative_margin,
            )
            self.neighbours = torch.from_numpy(found)
            self.watch.say(f"mined hard negatives for {int((found[:, 0] >= 0).sum()):,} pairs")
            self.watch.go_on()
        source.plan.neighbours = None if self.neighbours is None else self.neighbours.numpy()
        return min(stage.steps, (self.step // hard.every_steps + 1) * hard.every_steps)

    @contextlib.contextmanager
    def _averaged(self) -> Any:
        """The averaged weights in the model, for as long as this lasts."""
        if not self.average:
            yield
            return
        trained = {name: value.clone() for name, value in self.kept.items()}
        self.load_weights(self.average)
        try:
            yield
        finally:
            self.load_weights(trained)

    def _steps_before(self, number: int) -> int:
        return sum(stage.steps for stage in self.recipe.stages[:number])

    def _workers(self) -> int:
        return self.recipe.data.decode_workers if self.recipe.scratch is None and not self.recipe.data.pack else 0


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


@contextlib.contextmanager
def _exclusive(out: Path, accelerator: Accelerator) -> Any:
    """One run at a time in a folder. Raises UsageError if another process is at it."""
    out.mkdir(parents=True, exist_ok=True)
    if not accelerator.is_main_process:
        yield
        return
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{out}: another run is using this folder; wait for it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def is_main_process() -> bool:
    """Whether this is the one process, under `torchrun`, that writes and prints."""
    return Accelerator(cpu=not torch.cuda.is_available()).is_main_process
