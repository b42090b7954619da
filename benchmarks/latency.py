"""``emotion-edge bench``, from a checkout: the device's own code, not a second one."""

from emotion_edge.commands.bench import HELP, add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]
