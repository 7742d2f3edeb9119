"""The trials that run at a time: fewer, once a GPU that they share had too little memory."""

from typing import Any

from pipelines.hardware import hardware_name
from search.cluster import machines
from search.config import Resources
from search.slots import Slots, plan_slots


class Crowd:
    """The slots, and whether they are too many for the memory of a GPU."""

    def __init__(self, slots: Slots, resources: Resources):
        """Begin with `slots`; only those of `gpus_per_trial: auto` are ever changed."""
        self.slots = slots
        self.is_too_dense = False
        self._resources = resources

    def note_out_of_memory(self) -> None:
        """Learn that a trial has run out of memory."""
        is_ours_to_change = self._resources.gpus_per_trial == "auto"
        self.is_too_dense = is_ours_to_change and 0 < self.slots.gpus_per_trial < 1

    def thin_out(self) -> dict[str, Any]:
        """Let half as many share a GPU from now on; return it as a study notes it."""
        share = min(1.0, 2 * self.slots.gpus_per_trial)
        thinner = self._resources.model_copy(update={"gpus_per_trial": share})
        self.slots = plan_slots(thinner, self.slots.device, machines())
        self.is_too_dense = False
        return gpu_share_note(self.slots)


def gpu_share_note(slots: Slots) -> dict[str, Any]:
    """How many trials share a GPU, as a study notes it."""
    number = round(1 / slots.gpus_per_trial)
    return {"hardware": hardware_name(slots.device), "trials_per_gpu": number}
