"""Pushes bundles to any OCI registry, pulls and deletes them. Blocking, for a command line; host/supply/oci.py is how a node pulls."""

import http.client
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from host.core import oci
from host.core.bundle import UnverifiedBundle
from host.core.errors import NetworkError, OciRefused, TooLarge
from host.core.limits import DEFAULT
from host.core.oci import Local, Reference
from host.core.oci_auth import Authorizer, Credentials
from host.core.text import safe

TIMEOUT_S = 30.0


class Answer:
    """A whole answer: never more than its bound."""

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class OciRepository:
    """One repository of one registry. `actions` is what a token is asked for: `pull`, `pull,push` or `delete`."""

    def __init__(self, reference: Reference, credentials: Credentials | None = None, actions: str = "pull") -> None:
        self._reference, self._what = reference, str(reference)
        self._url = f"{reference.base}/v2/{reference.local.repository}/"
        self._authorizer = Authorizer(reference.base, reference.local.repository, actions, credentials)
        self._opener = urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=ssl.create_default_context()))

    def push(self, bundle: bytes) -> str:
        """Pushes a bundle under the reference's tag, or only under its digest; the manifest's digest. Raises UntrustedInput, NetworkError."""
        described = UnverifiedBundle.parse(bundle, self._what).manifest
        artifact = oci.wasm_artifact(bundle, described.name, described.version)
        for blob in (bundle, artifact.config):
            self._push_blob(blob)
        digest = oci.digest_of(artifact.manifest)
        target = self._reference.local.tag or digest
        self._ask("PUT", f"manifests/{target}", artifact.manifest, {"Content-Type": oci.MANIFEST}, (201,))
        return digest

    def pull(self) -> bytes:
        """The bundle's bytes, of the digest that the manifest names. Raises UntrustedInput, NetworkError."""
        accept = {"Accept": ", ".join(oci.MANIFEST_TYPES)}
        local = self._reference.local
        answer = self._ask("GET", f"manifests/{local.manifest}", None, accept, (200,), DEFAULT.oci_manifest_bytes_max)
        if local.digest:
            oci.check_digest(answer.body, local.digest, self._what)
        layer = oci.wasm_layer(answer.body, answer.headers.get_content_type(), self._what)
        data = self._ask("GET", f"blobs/{layer.digest}", None, {}, (200,), layer.size).body
        oci.check_digest(data, layer.digest, self._what)
        return data

    def delete(self) -> None:
        """Deletes the tag, or the manifest where the reference names a digest. Raises OciRefused, NetworkError."""
        self._ask("DELETE", f"manifests/{self._reference.local.manifest}", None, {}, (202, 200, 204))

    def _push_blob(self, data: bytes) -> None:
        digest = oci.digest_of(data)
        if self._ask("HEAD", f"blobs/{digest}", None, {}, (200, 404)).status == 200:
            return
        location = self._ask("POST", "blobs/uploads/", b"", {}, (202,)).headers.get("Location", "")
        # It may be relative, and may have a query already.
        target = urljoin(self._url, location)
        target += f"{'&' if urlsplit(target).query else '?'}digest={quote(digest, safe='')}"
        self._ask("PUT", target, data, {"Content-Type": "application/octet-stream"}, (201,))

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], expected: tuple[int, ...],
        bytes_max: int = DEFAULT.oci_answer_bytes_max,
    ) -> Answer:  # fmt: skip
        url = urljoin(self._url, path) if "://" in path else self._url + path
        answer = self._send(method, url, body, headers, bytes_max)
        while answer.status == 401:
            self._log_in(answer)
            answer = self._send(method, url, body, headers, bytes_max)
        self._authorizer.accepted()
        if answer.status not in expected:
            code, message = oci.read_problem(answer.body)
            raise OciRefused(f"{self._what}: the registry answered {answer.status} {code}: {message}", code, answer.status)
        return answer

    def _log_in(self, refused: Answer) -> None:
        """Answers the challenge of a 401. Raises OciRefused where the answer before was no good."""
        wanted = self._authorizer.challenged(", ".join(refused.headers.get_all("WWW-Authenticate", [])), self._what)
        if wanted is None:
            return
        token = self._open("GET", wanted.url, None, {}, wanted.authorization, DEFAULT.oci_answer_bytes_max)
        if token.status != 200:
            raise OciRefused(f"{self._what}: the token service answered {token.status}", "UNAUTHORIZED", 401)
        self._authorizer.take(token.body, self._what)

    def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str], bytes_max: int) -> Answer:
        same = urlsplit(url)[:2] == urlsplit(self._url)[:2]
        return self._open(method, url, body, headers, self._authorizer.header if same else "", bytes_max)

    def _open(self, method: str, url: str, body: bytes | None, headers: dict[str, str], authorization: str, bytes_max: int) -> Answer:
        try:
            request = urllib.request.Request(url, data=body, method=method, headers=headers)
            if authorization:
                request.add_unredirected_header("Authorization", authorization)
            try:
                response: Any = self._opener.open(request, timeout=TIMEOUT_S)
            except urllib.error.HTTPError as error:
                response, bytes_max = error, DEFAULT.oci_answer_bytes_max  # an answer as good as any other
            with response:
                data = response.read(bytes_max + 1)
                if len(data) > bytes_max:
                    raise TooLarge(f"{self._what}: the registry answered with more than {bytes_max} bytes")
                return Answer(response.status, response.headers, data)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise NetworkError(f"{self._what}: {safe(reason)}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Some registries keep blobs elsewhere. A login is not sent along (see `add_unredirected_header`), and TLS is not left."""

    max_redirections = DEFAULT.oci_redirects_max

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.get_method() not in ("GET", "HEAD") or urlsplit(newurl).scheme not in ("https", req.type):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def registry_reference(registry: str, local: Local) -> Reference:
    """A reference within the registry at an address such as `http://127.0.0.1:8470`. Raises UsageError for an address that is none."""
    return oci.parse_reference(f"{registry.rstrip('/')}/{local}")
