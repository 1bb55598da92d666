"""The bus: an application's catalogs, handlers and subscribers, checked against each other and ordered by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from cauce.arguments import DEPLOYING, FIRST_STEPS, HANDLERS, expect, wrong
from cauce.catalog import (
    MANEJADOR,
    PRINCIPAL,
    TODOS,
    AnyHandler,
    Binding,
    Catalog,
    EventHandlers,
    EventType,
    Subscriber,
)
from cauce.errors import CatalogError
from cauce.handlers import Shape, Takes, place_of, shape_for

if TYPE_CHECKING:
    from cauce.evento import Evento
    from cauce.outcome import Attempt
    from cauce.retry import RetryPolicy
    from cauce.webhooks import Provider

    ErrorHook = Callable[[BaseException, Evento[Any], Attempt], None]

MAX_NAME: Final = 255
"""The longest name of an application, in characters; the domain ``cauce.nombre`` has the same limit."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A handler, and the subscriber name under which its deliveries are stored."""

    nombre: str
    handler: AnyHandler
    shape: Shape
    retry: RetryPolicy | None
    timeout: float | None


@dataclass(slots=True)
class Route:
    """The consumers of one event type in one group. Those without ``tx`` run first, outside any transaction."""

    tipo: EventType[Any]
    plain: list[Consumer] = field(default_factory=list[Consumer])
    transactional: list[Consumer] = field(default_factory=list[Consumer])

    def add(self, consumer: Consumer) -> None:
        """Add a consumer to those with or without a transaction."""
        (self.transactional if consumer.shape.takes is Takes.TX else self.plain).append(consumer)

    def named(self, nombre: str) -> Consumer | None:
        """Return the consumer of that name, or None."""
        return next((c for c in (*self.plain, *self.transactional) if c.nombre == nombre), None)


class Bus:
    """An application's events and everything that listens to them.

    Args:
        catalogs: the application's own catalogs. They are listed, not discovered, so that the check for events without
            a handler does not depend on what was imported.
        event_handlers: the handler of each event of ``catalogs``, exactly one each.
        subscribers: further consumers of events of ``catalogs`` and ``imports``. A subscriber's ``grupo`` is created
            with it.
        imports: catalogs of other applications. This application can publish and subscribe to their events; the owning
            application handles them.
        application: the application's name, at most 255 characters. Applications that share a database need different
            names; a single application may leave it empty.
        on_error: called with the exception, the event and the attempt after every failed attempt, in the worker's
            thread, for example to report it to Sentry. What it raises is logged and ignored.
        providers: webhook providers, in addition to ``cauce.webhooks.PROVIDERS``; a provider replaces one of the same
            ``origen``. Every HTTP face of this bus accepts their deliveries.

    Raises:
        CatalogError: the bus has faults; the error lists all: an event without a handler or with two, a handler of an
            imported event, a subscriber of an unknown event, a name used twice, a handler with another payload type or
            with parameters that no handler has, a version without an upcaster to the next.
        WrongArgument: an argument has the wrong type.
    """

    def __init__(  # noqa: PLR0913 - the parts of an application, by name
        self,
        *,
        catalogs: Sequence[type[Catalog]] = (),
        event_handlers: EventHandlers | None = None,
        subscribers: Sequence[Subscriber] = (),
        imports: Sequence[type[Catalog]] = (),
        application: str = "",
        on_error: ErrorHook | None = None,
        providers: Sequence[Provider] = (),
    ) -> None:
        handlers = EventHandlers() if event_handlers is None else event_handlers
        wanted = "EventHandlers(SomeEvents.some_event.handled_by(function), ...)"
        expect(handlers, EventHandlers, "event_handlers of a Bus", wanted, FIRST_STEPS)
        expect(application, str, "application of a Bus", 'a name, like "tienda"', DEPLOYING)
        if on_error is not None and not callable(on_error):
            raise wrong("on_error of a Bus", on_error, "a function", HANDLERS)
        self.catalogs: tuple[type[Catalog], ...] = _listed(
            catalogs, _is_catalog, "catalogs of a Bus", "Catalog's subclasses"
        )
        self.imports: tuple[type[Catalog], ...] = _listed(
            imports, _is_catalog, "imports of a Bus", "Catalog's subclasses"
        )
        self.subscribers: tuple[Subscriber, ...] = _listed(
            subscribers, lambda one: isinstance(one, Subscriber), "subscribers of a Bus", "Subscriber objects"
        )
        self.providers: tuple[Provider, ...] = _listed(
            providers, _is_provider, "providers of a Bus", "Provider objects"
        )
        self.event_handlers, self.application, self.on_error = handlers, application, on_error
        self.types = {(tipo.origen, tipo.tipo): tipo for tipo in (*_types(self.catalogs), *_types(self.imports))}
        faults = [*self._faults()]
        self._routes = self._lay_out(faults)
        if faults:
            raise CatalogError(faults)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in which this application has a handler or a subscriber, ``principal`` first."""
        return tuple(self._routes)

    def routes(self, grupo: str) -> Mapping[tuple[str, str], Route]:
        """Return the route of each (origen, tipo) of a group; empty for a group that this application does not have.

        Args:
            grupo: the name of the consumer group.
        """
        return self._routes.get(grupo, {})

    def rows(self) -> list[dict[str, Any]]:
        """Return the application's own events as rows of the table ``catalogo``."""
        return [
            {
                "origen": tipo.origen,
                "tipo": tipo.tipo,
                "prioridad": tipo.prioridad,
                "clave": tipo.clave,
                "version": tipo.version,
            }
            for tipo in _types(self.catalogs)
        ]

    def subscriptions(self) -> list[dict[str, str]]:
        """Return the application's subscriptions as rows of the table ``suscripciones``."""
        return [
            {"grupo": grupo, "suscriptor": consumer.nombre, "origen": origen, "tipo": tipo}
            for grupo, routes in self._routes.items()
            for (origen, tipo), route in routes.items()
            for consumer in (*route.plain, *route.transactional)
        ]

    def _faults(self) -> Iterable[str]:
        if len(self.application) > MAX_NAME:
            yield f"application: {self.application[:20]!r}... is longer than {MAX_NAME} characters"
        own, imported = _types(self.catalogs), _types(self.imports)
        declared = Counter((*own, *imported))
        yield from (f"the event {tipo} is declared {n} times" for tipo, n in declared.items() if n > 1)
        for tipo in declared:
            missing = ", ".join(str(old) for old in range(1, tipo.version) if old not in tipo.upcasters)
            if missing:
                yield f"the event {tipo} has version {tipo.version} and no upcaster from version {missing}"
        yield from (f"the event {tipo} has two handlers" for tipo in dict.fromkeys(self.event_handlers.twice))
        yield from (
            f"the event {tipo} has no handler" for tipo in dict.fromkeys(own) if tipo not in self.event_handlers
        )
        for tipo in self.event_handlers:
            if tipo in imported:
                yield f"event_handlers: {tipo} is imported, so its handler is in another application; subscribe to it"
            elif tipo not in own:
                yield f"event_handlers: {tipo} is in none of the catalogs"
        origins = Counter(provider.origen for provider in self.providers)
        yield from (f"{n} providers have the origen {origen!r}" for origen, n in origins.items() if n > 1)
        names = Counter(subscriber.nombre for subscriber in self.subscribers)
        yield from (f"{n} subscribers are called {name!r}" for name, n in names.items() if n > 1)
        for subscriber in self.subscribers:
            yield from self._faults_of(subscriber)

    def _faults_of(self, subscriber: Subscriber) -> Iterable[str]:
        name = f"subscriber {subscriber.nombre!r}"
        if subscriber.nombre in ("", TODOS, MANEJADOR):
            yield f"{name}: that name is reserved"
        if not subscriber.grupo:
            yield f"{name}: grupo is empty"
        if not subscriber.bindings:
            yield f"{name} listens to nothing"
        bound = Counter(binding.tipo for binding in subscriber.bindings)
        yield from (f"{name} listens to {tipo} {n} times" for tipo, n in bound.items() if n > 1)
        yield from (
            f"{name} listens to {tipo}, which is in none of the catalogs"
            for tipo in bound
            if tipo not in self.types.values()
        )

    def _lay_out(self, faults: list[str]) -> dict[str, dict[tuple[str, str], Route]]:
        routes: dict[str, dict[tuple[str, str], Route]] = {}

        def add(grupo: str, nombre: str, binding: Binding) -> None:
            try:
                shape = shape_for(binding.handler, binding.tipo)
            except TypeError as error:
                name, where = place_of(binding.handler)
                faults.append(f"{binding.tipo}: the handler {name} {error}{where}")
                return
            group = routes.setdefault(grupo, {})
            route = group.setdefault((binding.tipo.origen, binding.tipo.tipo), Route(binding.tipo))
            route.add(Consumer(nombre, binding.handler, shape, binding.retry, binding.timeout))

        for tipo in self.event_handlers:
            add(PRINCIPAL, MANEJADOR, self.event_handlers.bindings[tipo])
        for subscriber in self.subscribers:
            for binding in subscriber.bindings:
                add(subscriber.grupo, subscriber.nombre, binding)
        return dict(sorted(routes.items(), key=lambda item: item[0] != PRINCIPAL))


def _types(catalogs: Iterable[type[Catalog]]) -> list[EventType[Any]]:
    return [tipo for catalog in catalogs for tipo in catalog.types()]


def _listed(given: object, fits: Callable[[object], bool], what: str, wanted: str) -> tuple[Any, ...]:
    """Return what a bus was given as a list, if all of it fits.

    Raises:
        WrongArgument: it is no list, or something in it does not fit.
    """
    if not isinstance(given, Iterable):
        raise wrong(what, given, f"a list of {wanted}", FIRST_STEPS)
    listed = tuple(cast("Iterable[object]", given))
    for one in listed:
        if not fits(one):
            raise wrong(f"one of the {what}", one, wanted, FIRST_STEPS)
    return listed


def _is_provider(given: object) -> bool:
    from cauce.webhooks import Provider  # noqa: PLC0415 - publishers, who have none, do without a long import

    return isinstance(given, Provider)


def _is_catalog(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Catalog) and given is not Catalog
