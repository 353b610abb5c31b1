"""What a node's control socket answers about its machines (HTTP on STATE/control.sock, mode 0600).

| request | answer |
|---|---|
| `GET /v1/machines` | the status of each machine, by capability |
| `POST /v1/machines/CAPABILITY/ACTION` | what a person asks of it (`home`, and what its driver knows: hold, resume, reset …); its status after it |

They pass any job that is running. An error is as in host/mesh_routes.py.
"""

import asyncio
from typing import Any

from aiohttp import web

from host.node import Node


def machine_routes(node: Node) -> list[web.RouteDef]:
    """The routes for one node's machines."""

    machines = _Machines(node)
    return [web.get("/v1/machines", machines.all), web.post("/v1/machines/{capability}/{action}", machines.operate)]


class _Machines:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def all(self, request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(self._statuses))

    async def operate(self, request: web.Request) -> web.Response:
        return web.json_response(await self._node.operate(request.match_info["capability"], request.match_info["action"]))

    def _statuses(self) -> dict[str, Any]:
        return {capability: driver.status() for capability, driver in self._node.drivers.items()}
