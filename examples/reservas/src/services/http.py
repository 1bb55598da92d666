"""Cauce's HTTP endpoints for this application's bus; the routes in ``app/api`` say which of them are served."""

from cauce import Settings
from cauce.web import create_app
from events import bus

endpoints = create_app(bus, Settings())
