"""Serve studies to many workers."""

from contextlib import suppress
from typing import Annotated

import typer


def storage_proxy(
    address: Annotated[
        str,
        typer.Argument(metavar="[ADDRESS]", help="PostgreSQL, without a password; by default IMGCLS_STUDY_STORAGE."),
    ] = "",
    host: Annotated[str, typer.Option(help="Address of this machine on which it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on which it listens.")] = 13000,
) -> None:
    """Serve the studies of a PostgreSQL to many workers, as grpc://HOST:PORT.

    It is Optuna's gRPC proxy, worth its while from about 20 workers on: they share its few connections. It asks for no
    password, so only this machine can reach it until --host says otherwise. Ctrl-C ends it.

    Example: imgcls storage-proxy postgresql://me@127.0.0.1/studies
    """
    from imgcls.search.storage import AUTO
    from imgcls.search.storage_proxy import serve

    with suppress(KeyboardInterrupt):
        serve(address or AUTO, host, port)
