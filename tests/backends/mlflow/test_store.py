"""Opening an MLflow store."""

from __future__ import annotations

import socket
import time

import pytest

from toxtrail.backends.mlflow.store import (
    CONNECT_SECONDS,
    UnreachableStoreError,
    connect_arguments,
    readonly_client,
)


def test_a_database_that_refuses_the_connection_is_asked_once(tmp_path, monkeypatch):
    def never(seconds: float) -> None:
        raise AssertionError(f"MLflow waits {seconds} s for the next attempt")

    monkeypatch.setattr(time, "sleep", never)
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        uri = f"postgresql://mia:secret-word@127.0.0.1:{own.getsockname()[1]}/runs"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UnreachableStoreError) as refused, readonly_client(tmp_path) as client:
            client.search_experiments()
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "seconds"),
    [
        ("postgresql://h/runs", CONNECT_SECONDS),
        ("postgresql+psycopg2://h/runs", CONNECT_SECONDS),
        ("mysql+pymysql://h/runs", CONNECT_SECONDS),
        ("postgresql://h/runs?connect_timeout=60", None),
        ("postgresql+pg8000://h/runs", None),
    ],
)
def test_an_own_time_out_is_kept_and_a_driver_without_one_gets_none(uri, seconds):
    assert connect_arguments(uri).get("connect_timeout") == seconds
