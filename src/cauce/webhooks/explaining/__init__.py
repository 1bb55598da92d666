"""Explaining: why a webhook was refused, in words for whoever has to mend it.

Pure, as all of ``cauce.webhooks``. The command line and the quarantine print what it says.
"""
