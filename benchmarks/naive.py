"""The usual way to write such a service, for comparison: FastAPI with models, an ORM session and a commit a request.

Run as `python -m benchmarks.naive PORT FOLDER TOKEN`. It authenticates, authorises, encrypts in an envelope and adds a
hash-chained audit row that is flushed before the answer, each from the database, as tutorials have it. None of our code
is in it, and none of the guarantees: no row MACs, no tree, no signature, no anchor, no check of what is read.
"""

import base64
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import uvicorn
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import ForeignKey, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

KEY: Final = "bench-aes"
_NONCE: Final = 12
_ONE_AT_A_TIME: Final = threading.Lock()


class Base(DeclarativeBase):
    """The tables."""


class Service(Base):
    """A caller."""

    __tablename__ = "services"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(unique=True)


class Key(Base):
    """A key; its material would be wrapped."""

    __tablename__ = "keys"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    material: Mapped[bytes]


class Grant(Base):
    """Who may use which key."""

    __tablename__ = "grants"
    id: Mapped[int] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id"), index=True)
    key_id: Mapped[int] = mapped_column(ForeignKey("keys.id"))


class Entry(Base):
    """The audit log."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    service_id: Mapped[int] = mapped_column(index=True)
    key_id: Mapped[int] = mapped_column(index=True)
    action: Mapped[str]
    hash: Mapped[str]


class Asked(BaseModel):
    """What `encrypt` takes."""

    plaintext: str
    encoding: str = "utf-8"
    context: dict[str, str] = {}


class Answered(BaseModel):
    """What it answers."""

    ciphertext: str
    encrypted_dek: str
    key_version: int


def build(folder: Path, token: str) -> FastAPI:
    """The application on a new database with one caller, one key and one grant."""
    # A connection for each request under way: with the usual pool, requests that have one and wait for a thread, and
    # threads that wait for a connection, stand still together at 128 callers.
    engine = create_engine(f"sqlite:///{folder / 'naive.db'}", connect_args={"timeout": 30}, pool_size=256)

    @event.listens_for(engine, "connect")
    def durable(connection: Any, _: object) -> None:  # noqa: ANN401
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with sessions() as session:
        session.add_all([Service(token_hash=_hashed(token)), Key(name=KEY, material=os.urandom(32))])
        session.flush()
        session.add(Grant(service_id=1, key_id=1))
        session.commit()

    def opened() -> Iterator[Session]:
        with sessions() as session:
            yield session

    def caller(
        authorization: Annotated[str, Header()], session: Annotated[Session, Depends(opened)]
    ) -> tuple[Session, Service]:
        found = session.scalar(
            select(Service).where(Service.token_hash == _hashed(authorization.removeprefix("Bearer ")))
        )
        if found is None:
            raise HTTPException(401)
        return session, found

    app = FastAPI()

    @app.post("/keys/{name}/encrypt")
    def encrypt(name: str, asked: Asked, who: Annotated[tuple[Session, Service], Depends(caller)]) -> Answered:
        session, service = who
        key = session.scalar(select(Key).where(Key.name == name))
        if key is None or not session.scalar(
            select(Grant).where(Grant.service_id == service.id, Grant.key_id == key.id)
        ):
            raise HTTPException(404)
        raw = base64.b64decode(asked.plaintext) if asked.encoding == "base64" else asked.plaintext.encode()
        dek, bound = os.urandom(32), repr(sorted(asked.context.items())).encode()
        answer = Answered(
            ciphertext=_sealed(dek, raw, bound), encrypted_dek=_sealed(key.material, dek, bound), key_version=1
        )
        with _ONE_AT_A_TIME:  # else two entries have one predecessor
            session.rollback()  # a transaction that began to read cannot write behind another's back
            newest = session.scalar(select(Entry.hash).order_by(Entry.id.desc()).limit(1)) or ""
            entry = Entry(at=time.time(), service_id=service.id, key_id=key.id, action="encrypt", hash="")
            entry.hash = hashlib.sha256(f"{newest}{entry.at}{entry.service_id}{entry.key_id}".encode()).hexdigest()
            session.add(entry)
            session.commit()
        return answer

    return app


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _sealed(key: bytes, plaintext: bytes, bound: bytes) -> str:
    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext, bound)).decode()


def main() -> None:
    """Serve until killed."""
    port, folder, token = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    uvicorn.run(build(folder, token), host="127.0.0.1", port=port, access_log=False, log_level="error")


if __name__ == "__main__":
    main()
