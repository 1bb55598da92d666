"""Cauce: a durable event bus on PostgreSQL."""

__all__: list[str] = []
