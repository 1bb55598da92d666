"""The command ``cauce``, on top of ``operations``, ``schema``, ``worker`` and ``web``.

- ``app``: the commands, how errors are shown, exit codes
- ``loading``: loads the bus from ``module:bus``, and settings from the environment
- ``running``: ``worker``, ``serve``, ``dev``, ``demo``; ``process``: logging, and how a process ends
- ``looking``: ``status``, ``events``, ``show``; ``tables``: their output
- ``catalog``: ``catalog export``, ``diff`` and ``check``
- ``docs``: the documents in the wheel
- ``mending``: ``migrate``, ``publish``, ``retry``, ``dismiss``
"""

from cauce.cli.app import main

__all__ = ["main"]
