"""Whether a PostgreSQL, a broker and an object store answer, ours or the user's. Knows URLs, not who runs them.

The `check_*` functions raise ServerFailed and never show a password.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import psycopg
import redis
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.local.errors import ServerFailed

TIMEOUT_SECONDS = 5


def check_database(url: str) -> None:
    try:
        psycopg.connect(libpq_url(url), connect_timeout=TIMEOUT_SECONDS).close()
    except psycopg.Error as error:
        raise _no_answer("MEMGEN_DATABASE_URL", url, "PostgreSQL", error) from error


def check_broker(url: str) -> None:
    try:
        ping(url)
    except (redis.RedisError, ValueError) as error:
        raise _no_answer("MEMGEN_BROKER_URL", url, "Valkey or Redis", error) from error


def check_s3(url: str, bucket: str, region: str, *, make_bucket: bool = True) -> None:
    """Whether it answers, and has the bucket, which by default is made where it is missing."""
    try:
        with s3_client(url, region) as client:
            if make_bucket:
                ensure_bucket(client, bucket)
            elif not client.bucket_exists(bucket):
                raise ServerFailed(
                    f"S3 answers at {without_password(url)} and has no bucket {bucket!r} (MEMGEN_S3_BUCKET)",
                    "`memgen up` makes it; with a server of your own, `memgen init`",
                )
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise _no_answer("MEMGEN_S3_URL", url, "S3", error) from error


def libpq_url(url: str) -> str:
    """SQLAlchemy's URL as libpq reads it: without the driver's name."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def ping(broker_url: str) -> bool:
    once = Retry(NoBackoff(), 0)
    parts = urlsplit(broker_url)
    if parts.scheme == "redis+socket":  # kombu's spelling, which redis-py does not read
        client = redis.Redis(unix_socket_path=parts.path, retry=once, socket_timeout=TIMEOUT_SECONDS)
    else:
        client = redis.Redis.from_url(broker_url, retry=once, socket_timeout=TIMEOUT_SECONDS)
    try:
        return bool(client.ping())
    finally:
        client.close()


@contextmanager
def s3_client(url: str, region: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Minio]:
    """A client without retries whose connections end with the block."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.username:
        raise ValueError("expected http(s)://access_key:secret_key@host:port")
    pool = urllib3.PoolManager(retries=False, timeout=timeout_seconds)
    try:
        yield Minio(
            parts.netloc.rpartition("@")[2],
            access_key=unquote(parts.username),
            secret_key=unquote(parts.password or ""),
            secure=parts.scheme == "https",
            region=region,
            http_client=pool,
        )
    finally:
        pool.clear()


def ensure_bucket(client: Minio, bucket: str) -> None:
    if not client.bucket_exists(bucket):
        try:
            client.make_bucket(bucket)
        except S3Error as error:  # somebody else was quicker
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    _, at, place = parts.netloc.rpartition("@")
    if not at:
        return url
    return parts._replace(netloc=f"{parts.username or ''}:***@{place}").geturl()


def _no_answer(variable: str, url: str, what: str, error: Exception) -> ServerFailed:
    reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
    password = urlsplit(url).password
    if password:
        reason = reason.replace(password, "***")
    return ServerFailed(
        f"{variable} is {without_password(url)}, but no {what} answers there ({reason})",
        f"Start it or correct the URL; without {variable}, `memgen up` runs its own.",
    )
