"""Explains to an operator why a webhook was refused, and what to do.

Pure, like all of ``cauce.webhooks``. The command line prints the explanation; the quarantine stores its cause.
"""
