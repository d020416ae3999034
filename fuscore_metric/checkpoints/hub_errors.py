"""What huggingface_hub raises -> one line that says what to do; `hub` uses it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from huggingface_hub import constants, errors
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# httpx's or httpx2's, whichever this huggingface_hub uses: also what a lost connection raises.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
FAILURES = (OSError, HTTPError, ValueError, RuntimeError)
"""What the library's calls raise, wrapped by its threads or not."""

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_LOGIN = "log in with `hf auth login`"
_KEPT = "try again: files that were finished are kept"


def explain(error: Exception, hub_id: str, revision: str | None, *, upload: bool = False) -> str:
    """Describe in one line what went wrong with a repository, and what to do.

    Args:
        error: One of `FAILURES`; its causes are considered, too.
        hub_id: "owner/name".
        revision: Branch, tag or commit, if one was asked for.
        upload: Whether files were going there.
    """
    chain = list(_causes(error))
    for link in chain:
        if isinstance(link, HFValidationError):
            return f'Expected a hub id "owner/name", got {hub_id!r}: {_first_line(link)}'
        if isinstance(link, HfHubHTTPError):
            return _answered(link, hub_id, revision, upload)
    if any(isinstance(link, HTTPError) for link in chain):
        return _unreachable(chain, hub_id, upload)
    if any(isinstance(link, (LocalEntryNotFoundError, OfflineModeIsEnabled)) for link in chain):
        return _not_cached(hub_id, revision, upload)
    return _local(chain, hub_id, upload)


def _answered(error: HfHubHTTPError, hub_id: str, revision: str | None, upload: bool) -> str:
    """The hub answered, with a refusal."""
    page = f"{constants.ENDPOINT}/{hub_id}"
    if isinstance(error, GatedRepoError):
        return f"{hub_id!r} is gated: accept its conditions at {page}, then {_LOGIN}"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"No revision {revision!r} of {hub_id!r}: see {page}/commits/main for those there are"
        )
    if isinstance(error, DisabledRepoError):
        return f"{hub_id!r} is disabled on the hub: see {page}"
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return (
            f"No {hub_id!r} at {constants.ENDPOINT}: check the spelling; if it is private, {_LOGIN}"
        )
    if status in (401, 403):
        return _forbidden(status, hub_id, upload)
    if status == 429:
        return (
            f"The hub refuses more requests for {hub_id!r} now (429): wait some minutes; {_LOGIN}"
        )
    if status >= 500:
        return f"The hub failed on {hub_id!r} ({status}): {_later(upload)}"
    return f"The hub refuses {hub_id!r} ({status}): {_first_line(error)}"


def _forbidden(status: int, hub_id: str, upload: bool) -> str:
    doing = "write to" if upload else "read"
    if status == 401:
        return f"The hub does not know who wants to {doing} {hub_id!r} (401): {_LOGIN}"
    return (
        f"The access token has no right to {doing} {hub_id!r} (403): make one that has it at "
        f"{constants.ENDPOINT}/settings/tokens, then {_LOGIN}"
    )


def _unreachable(chain: list[BaseException], hub_id: str, upload: bool) -> str:
    what = next(link for link in chain if isinstance(link, HTTPError))
    reason = _first_line(what) or type(what).__name__
    return (
        f"Lost the connection to {constants.ENDPOINT} for {hub_id!r} ({reason}): {_later(upload)}"
    )


def _not_cached(hub_id: str, revision: str | None, upload: bool) -> str:
    if upload:
        return f"Cannot upload {hub_id!r} offline: unset HF_HUB_OFFLINE"
    asked = "" if revision is None else f" --revision {revision}"
    return (
        f"{hub_id!r} is not wholly in the cache {constants.HF_HUB_CACHE}, and the hub may not be "
        "asked (HF_HUB_OFFLINE or local_files_only): download it once with "
        f"`HF_HUB_OFFLINE=0 hf download {hub_id}{asked}`"
    )


def _local(chain: list[BaseException], hub_id: str, upload: bool) -> str:
    """The disk refused, or the library noticed something itself."""
    known = [link for link in chain if isinstance(link, OSError) and link.errno is not None]
    if upload or not known:
        doing = "upload" if upload else "download"
        return f"Cannot {doing} {hub_id!r} ({_first_line(chain[-1])}): {_later(upload)}"
    if known[0].errno in _FULL_DISK:
        return (
            f"No space left for {hub_id!r} in {constants.HF_HUB_CACHE}: free some, or set HF_HOME "
            "to a folder on another disk"
        )
    return (
        f"Cannot write {hub_id!r} to the cache {constants.HF_HUB_CACHE} ({known[0].strerror}): "
        "set HF_HOME to a folder that can be written"
    )


def _later(upload: bool) -> str:
    return "try again" if upload else _KEPT


def _causes(error: BaseException) -> Iterator[BaseException]:
    known: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in known:
        known.append(link)
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
