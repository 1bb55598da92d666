"""Sample events of every provider and keys to sign them with, to try an inbox before a provider sends to it.

Nothing here is loaded when real webhooks are verified.
"""
