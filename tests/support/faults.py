"""A connection that fails where a test wants it to."""

from collections.abc import Callable
from typing import Any

from keyvault_lite.ledger.storage import driver

Fault = Callable[[str], Exception | None]


def failing(message: str = "disk I/O error") -> Exception:
    error: Exception = driver.dbapi.OperationalError(message)
    return error


class FaultyConnection:
    """Passes everything on to a real connection; `before` may raise instead of a statement, `after` in spite of it."""

    def __init__(self, real: driver.Connection) -> None:
        self.real = real
        self.before: Fault = lambda _: None
        self.after: Fault = lambda _: None
        self.statements: list[str] = []

    def execute(self, sql: str, *values: Any) -> Any:  # noqa: ANN401
        return self._run(sql, self.real.execute, *values)

    def executemany(self, sql: str, *values: Any) -> Any:  # noqa: ANN401
        return self._run(sql, self.real.executemany, *values)

    def _run(self, sql: str, run: Callable[..., Any], *values: Any) -> Any:  # noqa: ANN401
        self.statements.append(sql)
        if error := self.before(sql):
            raise error
        done = run(sql, *values)
        if error := self.after(sql):
            raise error
        return done

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def close(self) -> None:
        self.real.close()
