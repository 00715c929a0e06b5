"""The object store: bytes by key, in one S3 bucket. Knows no rows.

Keys are content-addressed where the content is immutable, so writing the same bytes twice is harmless.
"""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from registry.errors import NotConfigured, ObjectNotFound, StoreUnavailable

_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}


@dataclass(frozen=True)
class StoredObject:
    key: str
    size: int
    """Size in bytes."""
    modified: datetime
    """Time of the last change, by the store's clock."""


class ObjectStore:
    def __init__(self, s3_url: str, bucket: str, region: str) -> None:
        """`s3_url` is `http://access_key:secret_key@host:port`."""
        url = urlsplit(s3_url)
        if url.scheme not in ("http", "https") or not url.hostname or not url.username or not url.password:
            raise NotConfigured("MEMGEN_S3_URL must look like http://access_key:secret_key@host:port")
        self.bucket = bucket
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(3, backoff_factor=0.2),
            maxsize=10,
        )
        self._client = Minio(
            f"{url.hostname}:{url.port}" if url.port else url.hostname,
            access_key=unquote(url.username),
            secret_key=unquote(url.password),
            secure=url.scheme == "https",
            region=region,
            http_client=self._http,
        )

    def close(self) -> None:
        self._http.clear()

    def ensure_bucket(self) -> None:
        with self._errors(self.bucket):
            if not self._client.bucket_exists(self.bucket):
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

    def ping(self) -> None:
        """Raises StoreUnavailable unless the store answers for our bucket."""
        with self._errors(self.bucket):
            if not self._client.bucket_exists(self.bucket):
                raise StoreUnavailable(f"bucket {self.bucket!r} does not exist; create it or run `memgen up`")

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._client.put_object(self.bucket, key, io.BytesIO(data), len(data))

    def get(self, key: str) -> bytes:
        with self._errors(key):
            response = self._client.get_object(self.bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

    def put_file(self, key: str, path: Path) -> None:
        with self._errors(key):
            self._client.fput_object(self.bucket, key, str(path))

    def get_file(self, key: str, path: Path) -> None:
        """Download to `path`; the client writes a part file first, so `path` is whole or absent."""
        with self._errors(key):
            self._client.fget_object(self.bucket, key, str(path))

    def put_folder(self, prefix: str, folder: Path) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)

    def get_folder(self, prefix: str, folder: Path, *, without: Collection[str] = ()) -> None:
        """Download everything under `prefix` into `folder`, except files of the names in `without`."""
        with self._errors(prefix):
            keys = [str(o.object_name) for o in self._client.list_objects(self.bucket, f"{prefix}/", recursive=True)]
        if not keys:
            raise ObjectNotFound(f"nothing is stored under {prefix!r} in bucket {self.bucket!r}")
        for key in keys:
            name = key.removeprefix(f"{prefix}/")
            if name in without:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.get_file(key, target)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of their keys."""
        with self._errors(prefix):
            for found in self._client.list_objects(self.bucket, prefix, recursive=True):
                if found.object_name is not None and found.last_modified is not None:
                    yield StoredObject(found.object_name, found.size or 0, found.last_modified)

    def folders(self, prefix: str) -> Iterator[str]:
        """What stands between `prefix` and the next slash of keys, each once, with `prefix` and the slash."""
        with self._errors(prefix):
            for found in self._client.list_objects(self.bucket, prefix):
                if found.is_dir and found.object_name is not None:
                    yield found.object_name

    def stat(self, key: str) -> StoredObject:
        """Raises ObjectNotFound."""
        with self._errors(key):
            found = self._client.stat_object(self.bucket, key)
        if found.last_modified is None:
            raise StoreUnavailable(f"the object store did not say when {key!r} was modified; expected Last-Modified")
        return StoredObject(key, found.size or 0, found.last_modified)

    def delete_folder(self, prefix: str) -> None:
        """Delete everything under `prefix`; deleting what is not there is harmless."""
        for found in tuple(self.list(f"{prefix}/")):
            self.delete(found.key)

    def delete(self, key: str) -> None:
        """Deleting what is not there is harmless."""
        with self._errors(key):
            self._client.remove_object(self.bucket, key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code in _MISSING:
                raise ObjectNotFound(f"object {key!r} is not in bucket {self.bucket!r}") from error
            raise StoreUnavailable(f"the object store refused {key!r}: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, ParseError) as error:
            raise StoreUnavailable(
                f"the object store did not answer for {key!r}: {error}. Is MEMGEN_S3_URL right, and is it up?"
            ) from error
