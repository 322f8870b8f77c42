"""Which devices of a machine a run trains on, as it is typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tl_toolkit.errors import Problem, RecipeError

__all__ = ["DeviceChoice", "DeviceNames", "parse_devices"]

DeviceNames: TypeAlias = str | int | Sequence[int]
"""`all`, a number of devices, or the places of some of them, as `0,1` or `[0, 1]`."""


@dataclass(frozen=True)
class DeviceChoice:
    """Devices of a machine.

    Attributes:
        text: As it was typed.
        count: So many, the first ones; None for no number.
        places: Those at these places, from 0; empty for no places. Without either all are meant.
    """

    text: str
    count: int | None = None
    places: tuple[int, ...] = ()

    def select(self, available: int, kind: str) -> list[int]:
        """Returns the places of the devices.

        Args:
            available: How many there are.
            kind: What they are, for the message: GPU or CPU.

        Raises:
            RecipeError: There are fewer.
        """
        places = list(self.places or range(available if self.count is None else self.count))
        if max(places) < available:
            return places
        have = f"this machine has {available} {kind}{'s' if available > 1 else ''}"
        if kind == "CPU":
            have = f"TensorFlow sees no GPU here, and {available} logical CPU"
            have += "s" if available > 1 else ""
        expected = "all, or at most so many."
        if self.places:
            expected = f"places from 0 to {available - 1}."
        raise RecipeError(Problem("--devices", f"{self.text}: {have}", expected, "--devices all"))


def parse_devices(devices: DeviceNames | None) -> DeviceChoice | None:
    """Returns the devices that are meant; None for the one that TensorFlow takes by itself.

    Args:
        devices: As it is typed.

    Raises:
        RecipeError: It is no list of devices.
    """
    if devices is None:
        return None
    is_list = not isinstance(devices, str | int)
    text = ",".join(map(str, devices)) if not isinstance(devices, str | int) else str(devices)
    if text == "all":
        return DeviceChoice(text)
    if not is_list and re.fullmatch(r"[1-9]\d{0,3}", text):
        return DeviceChoice(text, count=int(text))
    if re.fullmatch(r"\d{1,4}(,\d{1,4})*,?", text) and (is_list or "," in text):
        places = tuple(map(int, text.rstrip(",").split(",")))
        if len(set(places)) == len(places):
            return DeviceChoice(text, places=places)
    raise RecipeError(
        Problem(
            where="--devices",
            what=f"{text!r}",
            expected="expected all, a number of devices, or their places from 0, as 0,1.",
            hint="--devices all",
        )
    )
