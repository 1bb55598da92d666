"""Trying: sample events of every provider and keys to sign them with, for an inbox that nobody sends to yet.

Nothing here is loaded when real webhooks are verified.
"""
