"""Serves the trust metadata, and the bundles under the names that a TUF client asks for.

| request | answer |
|---|---|
| `GET /trust/metadata/NAME` | a file of DIR/trust/metadata: `timestamp.json`, `N.ROLE.json` |
| `GET /trust/targets/LANE/NAME/HASH.VERSION.wasm` | the bundle with this SHA-256 (TUF specification 1.0.31, section 6.2: consistent snapshots) |
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from host.core.lanes import LANES
from host.core.manifest import SEMVER
from registry.trust.roles import FOLDER, METADATA, OFFLINE, SNAPSHOT

_METADATA = re.compile(rf"(timestamp|[1-9][0-9]{{0,9}}\.({'|'.join((*OFFLINE, SNAPSHOT))}))\.json\Z")
_TARGET = re.compile(r"(?P<hash>[0-9a-f]{64})\.(?P<version>.{1,128})\.wasm\Z")
JSON = "application/json"


def routes(
    directory: Path, path_of: Callable[[str], Path], admit: Callable[[web.Request, str], None] = lambda request, digest: None
) -> list[web.RouteDef]:
    """For an aiohttp application. `path_of("sha256:…")` says where the blob with this digest is, or would be; `admit` raises for who may not pull it."""
    folder = directory / FOLDER / METADATA

    async def metadata(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not _METADATA.match(name):
            raise web.HTTPNotFound(text="expected timestamp.json or VERSION.ROLE.json")
        # A numbered file never changes; the timestamp says which of them count now.
        age = "no-cache" if name == "timestamp.json" else "max-age=31536000, immutable"
        return await _file(folder / name, JSON, age)

    async def target(request: web.Request) -> web.StreamResponse:
        named = _TARGET.match(request.match_info["file"])
        if request.match_info["lane"] not in LANES or named is None or not re.match(SEMVER, named["version"]):
            raise web.HTTPNotFound(text="expected LANE/NAME/HASH.VERSION.wasm")
        admit(request, f"sha256:{named['hash']}")
        return await _file(path_of(f"sha256:{named['hash']}"), "application/wasm", "max-age=31536000, immutable")

    return [web.get("/trust/metadata/{name}", metadata), web.get("/trust/targets/{lane}/{name}/{file}", target)]


async def _file(path: Path, kind: str, age: str) -> web.FileResponse:
    if not await asyncio.to_thread(path.is_file):
        raise web.HTTPNotFound(text=f"{path.name} is not here")
    return web.FileResponse(path, headers={"Content-Type": kind, "Cache-Control": age})
