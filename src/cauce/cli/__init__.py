"""The command ``cauce``, a face of ``operations``, ``schema``, ``worker`` and ``web``: all it does can be scripted.

- ``app``: the commands, what an error looks like, exit codes
- ``loading``: from ``module:bus`` to a bus, from the environment to settings and a connection
- ``running``: ``worker``, ``serve``, ``dev``, ``demo``; ``process``: logging, and how a process ends
- ``looking``: ``status``, ``events``, ``show``; ``tables``: how they look
- ``docs``: the documents in the wheel
- ``mending``: ``migrate``, ``publish``, ``retry``, ``dismiss``
"""

from cauce.cli.app import main

__all__ = ["main"]
