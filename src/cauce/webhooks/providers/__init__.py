"""The providers, a file each: how each signs and describes its events, with the page that documents it.

They are loaded by name through ``cauce.webhooks.PROVIDERS``. To add one, write its file and its line in
``cauce.webhooks.registry``, and put its samples in ``cauce.webhooks.trying``.
"""
