"""Speeds that are given to what would measure them, so that a test knows what has to be chosen."""

from imgcls.runs.threads import Speeds


def give_speeds(monkeypatch, module, speeds):
    """A module measures as told; returns the numbers of threads that it asks for, list by list."""
    asked = []

    def measured(_prepared, numbers):
        asked.append(list(numbers))
        return Speeds({number: speeds[number] for number in asked[-1]}, None)

    monkeypatch.setattr(module, "measured_speeds", measured)
    return asked
