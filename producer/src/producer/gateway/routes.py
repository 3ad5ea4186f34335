"""All of the gateway's HTTP calls. They read the request, ask a desk, write the answer; policy lives elsewhere."""

from fastapi import APIRouter

from producer.gateway.answering import Answering
from producer.gateway.counts import CountsCache
from producer.gateway.dead_desk import DeadDesk
from producer.gateway.dead_routes import DeadRoutes
from producer.gateway.desk import Desk
from producer.gateway.environment_routes import EnvironmentRoutes
from producer.gateway.lookup_routes import LookupRoutes
from producer.gateway.submission import Known
from producer.gateway.task_routes import TaskRoutes
from producer.gateway.typed_routes import TypedRoutes
from producer.gateway.views import Why


def gateway_routers(desk: Desk, dead_desk: DeadDesk, known: Known, counts: CountsCache, why: Why) -> list[APIRouter]:
    """In the order of the sections of ``/docs``."""
    answering = Answering(desk, why)
    return [
        TypedRoutes(desk, answering).router(),
        TaskRoutes(desk, answering).router(),
        LookupRoutes(desk, why).router(),
        DeadRoutes(dead_desk, answering).router(),
        EnvironmentRoutes(known, counts).router(),
    ]
