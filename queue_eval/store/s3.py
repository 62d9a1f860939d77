"""A run's objects in a bucket of S3, or of whatever speaks its language and knows conditional writes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from queue_eval.core.errors import AccessError, ConfigError, QueueEvalError, StoreError, UnavailableError

T = TypeVar("T")

REQUESTS_AT_ONCE = 16
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired")
_ABSENT = ("NoSuchKey", "404")
_PASSING = (
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
)


class S3Store:
    """Creation is conditional (`If-None-Match: *`); what S3 has acknowledged is durable.

    Credentials by boto3's own chain.
    """

    def __init__(self, client: Any, *, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._pool = ThreadPoolExecutor(max_workers=REQUESTS_AT_ONCE, thread_name_prefix="s3")

    async def create(self, name: str, data: bytes) -> bool:
        key = self._key(name)
        return await self._in_thread(lambda: self._created(key, data))

    def _created(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - half a second, and few runs need it

        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            match _status(error):
                case HTTPStatus.PRECONDITION_FAILED:
                    return False
                case HTTPStatus.CONFLICT:
                    # another creation of the same name is under way: the next try finds out which one won
                    raise UnavailableError(
                        f"store: s3://{self._bucket}/{key} is being written by another process"
                    ) from error
                case HTTPStatus.NOT_IMPLEMENTED:
                    raise ConfigError(f"store: s3://{self._bucket} knows no conditional writes; {REMEDY}") from error
            raise
        return True

    async def put(self, name: str, source: bytes | Path) -> None:
        key = self._key(name)

        def replaced() -> None:
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=source)
                return
            with source.open("rb") as file:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file)

        await self._in_thread(replaced)

    async def get(self, name: str) -> bytes | None:
        key = self._key(name)
        return await self._in_thread(lambda: self._read(key))

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        return list(await asyncio.gather(*(self.get(name) for name in names)))

    def _read(self, key: str) -> bytes | None:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as above

        try:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                return None
            raise
        return body or None

    async def names(self, prefix: str) -> AsyncIterator[str]:
        page: dict[str, Any] = {}
        while True:
            page = await self._in_thread(lambda after=page: self._listed(prefix, after))  # type: ignore[misc]
            for found in page.get("Contents", ()):
                name = found["Key"].removeprefix(self._prefix)
                if not name.rpartition("/")[2].startswith("."):
                    yield name
            if not page.get("IsTruncated"):
                return

    def _listed(self, prefix: str, after: dict[str, Any]) -> dict[str, Any]:
        onwards = {"ContinuationToken": after["NextContinuationToken"]} if after else {}
        page: dict[str, Any] = self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=self._prefix + prefix, **onwards
        )
        return page

    def _key(self, name: str) -> str:
        if not name or name.startswith("/") or ".." in name.split("/") or "\x00" in name:
            raise StoreError(f"store: {name!r} is no object name")
        return self._prefix + name

    async def _in_thread(self, work: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (ClientError, BotoCoreError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> QueueEvalError:
        from botocore import exceptions as boto  # noqa: PLC0415 - as above

        where = f"store: s3://{self._bucket}/{self._prefix}"
        if isinstance(error, boto.ClientError):
            status, code = _status(error), error.response.get("Error", {}).get("Code", "")
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS or code in _PASSING:
                return UnavailableError(f"{where}: {error}")
            if status in _REFUSED or code in _EXPIRED:
                return AccessError(f"{where}: {error}; check the credentials and their rights")
            return StoreError(f"{where}: {error}; check the bucket's name and region, or name another with --store")
        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.NoRegionError):
            return ConfigError(f"{where}: {error}; set AWS_ACCESS_KEY_ID and its companions, or a role")
        if isinstance(error, boto.ParamValidationError):
            return ConfigError(f"{where}: {str(error).splitlines()[-1]}")
        return UnavailableError(f"{where}: {error}")


REMEDY = "name one that does (AWS S3, MinIO, Ceph …) or a directory: without them a result could be replaced"


def connect(environment_endpoint: str | None) -> Any:
    """boto3's client. `environment_endpoint`: the URL of something else than AWS, as AWS_ENDPOINT_URL names it."""
    import boto3  # noqa: PLC0415 - as above
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        # the caller repeats, logs it once, and knows what a lost answer means
        retries={"total_max_attempts": 1},
        max_pool_connections=REQUESTS_AT_ONCE,
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path" if environment_endpoint else "auto"},
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=environment_endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"store: s3 cannot be used: {error}") from None


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
