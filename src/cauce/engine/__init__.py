"""The engine: what a worker does with the events of its groups.

``worker`` and ``cron`` start it, ``runner`` takes one batch after another, and each other module has one part of a
batch's way. Applications use it through the command line, ``cauce.testing`` and ``Worker``.
"""
