"""What many suites share: a clock that stands still until it is told, and keys from fixed seeds."""

from dataclasses import dataclass

import pytest
from nacl.signing import SigningKey


@dataclass
class FakeClock:
    """Both times in milliseconds; a test sets them, and nothing else moves them."""

    now: int = 1_700_000_000_000
    monotonic: int = 0

    def now_ms(self) -> int:
        return self.now

    def monotonic_ms(self) -> int:
        return self.monotonic

    def advance(self, ms: int) -> None:
        self.now += ms
        self.monotonic += ms


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def owner() -> SigningKey:
    return SigningKey(b"o" * 32)


@pytest.fixture(scope="session")
def author() -> SigningKey:
    return SigningKey(b"a" * 32)
