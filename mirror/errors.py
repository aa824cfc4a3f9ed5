"""Everything that can be foreseen to go wrong, in one tree. Faces turn these into replies; nobody else does.

::

    MirrorError
      SettingsError                 a setting that cannot be used; names the key and where it was set
      StoreError
        StoreBusy                   another process holds the store
        StoreUnusable               missing, not writable, not a folder
        OnlyRead                    it lies in a folder of somebody else's
        StoreFull                   no room for these bytes; service goes on without keeping them
        BrokenStore                 the tree says what is not so
        NothingEarlier              a tag is not known to have meant that manifest before, or any
      UpstreamError
        NotFoundUpstream            the upstream has no such thing
        DeniedByUpstream            401 or 403 after everything we can say
        ForbiddenAddress            a redirect to where a public upstream may not send us
        UpstreamRefused             another 4xx: the upstream will not, and asking again changes nothing
        UpstreamLoop                what is above the upstream is this mirror again
        RateLimited                 429; ``retry_after_s`` when the upstream said so
        UpstreamUnavailable         no connection, 5xx, a reset, a stall, a short body
        UpstreamMisbehaved          an answer that breaks the protocol: wrong length, wrong range
        StaleAddress                the signed address is used up: resolve again
      BadCertificate                a certificate, its key or our CA's files that cannot be used or made
      BadKey                        a key, or the file of them, that cannot be used; a name that is taken or unknown
        TokenRefused                a request for a token that shows nothing we believe
      DigestMismatch                the bytes are not the ones asked for
      BadBundle                     a bundle or folder that is not what it should be
      FillBroken                    a fill ended by something nobody foresaw; the log has it
      NotAllowed                    the policy refuses this model to this user
      BackendError
        BackendDown                 the Ollama behind us cannot be reached, or ended before it had answered
        BackendRefused              it answered with an error, or ended its lines with one; ``status`` is HTTP's
      QueueError                    the queue of pulls could not do what was asked
        QueueFull                   too many models are queued
        QueueUnusable               its database cannot be read or written
        AskedTooOften               one client has asked for as many models as it may in a day
        NoSuchJob                   nothing of that name or id is queued
      DispatchError                 a request may not wait for its turn at a backend
        TooManyWaiting              its user's lane is full, or the whole queue
        UserBlocked                 its user is blocked
      Offline                       not in the store, and the mirror was told not to ask upstream
      ServerError                   a running mirror answered our command with an error

What does not parse is ``mirror.values.Invalid`` (a ValueError), which may not import this room.
``permanent`` says whether the same call can succeed later without anybody changing anything; only what
retries reads it.
"""

from mirror.values import Digest


class MirrorError(Exception):
    """Something foreseen went wrong; the text is a sentence for a person."""

    permanent = True


class SettingsError(MirrorError):
    """A setting that cannot be used. ``key`` is its path (``cache.max_size``), ``origin`` where it was set."""

    def __init__(self, key: str, problem: str, origin: str) -> None:
        self.key = key
        self.problem = problem
        self.origin = origin
        super().__init__(f"{key}: {problem} (from {origin})" if key else f"{problem} (from {origin})")


class StoreError(MirrorError):
    """The store could not do what was asked."""


class StoreBusy(StoreError):
    """Another process holds the store. ``holder`` says which; ``url`` is where it listens, if it serves.

    ``pid`` is its number, as far as its own container goes; None of an older version.
    """

    def __init__(self, holder: str, url: str | None, pid: int | None = None) -> None:
        self.holder = holder
        self.url = url
        self.pid = pid
        super().__init__(f"the store is in use by {holder}")


class StoreUnusable(StoreError):
    """The folder is missing, is no folder, or cannot be written."""


class OnlyRead(StoreError):
    """What was to be changed lies in a folder that the mirror only reads."""


class StoreFull(StoreError):
    """There is no room for these bytes, or the store cannot be written any more."""


class BrokenStore(StoreError):
    """The tree says what is not so: a blob of the wrong size, a manifest that does not parse."""


class NothingEarlier(StoreError):
    """A tag is not known to have meant what somebody wants it to mean again."""


class UpstreamError(MirrorError):
    """The registry above us did not give what was asked."""


class NotFoundUpstream(UpstreamError):
    """The upstream answered 404."""


class DeniedByUpstream(UpstreamError):
    """The upstream answered 401 or 403 after everything we can say to it."""


class ForbiddenAddress(UpstreamError):
    """A private, loopback or link-local address, where only one of the public internet may be."""


class UpstreamRefused(UpstreamError):
    """The upstream answered another 4xx; asking again changes nothing."""


class UpstreamLoop(UpstreamError):
    """The upstream is a mirror whose own upstream leads back to this one."""


class RateLimited(UpstreamError):
    """The upstream answered 429; ``retry_after_s`` is its own word on when to ask again."""

    permanent = False

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class UpstreamUnavailable(UpstreamError):
    """No connection, a 5xx, a reset, a stall or a body that ended early."""

    permanent = False


class UpstreamMisbehaved(UpstreamError):
    """An answer that breaks the protocol, such as another length or range than was asked."""

    permanent = False


class StaleAddress(UpstreamError):
    """A signed address is used up; resolving it again gives a new one."""

    permanent = False


class CannotLink(MirrorError):
    """A model cannot be given to an Ollama by links into its folder."""

    permanent = False


class BadCertificate(MirrorError):
    """A certificate or key file cannot be used, or our CA cannot be made: it is there already, or half there."""


class BadKey(MirrorError):
    """A key, or the file of keys, cannot be used; or a command names a key that is not there, or is there already."""


class TokenRefused(BadKey):
    """A request for a token shows nothing that we believe: an unknown key, a wrong signature, one that is too old."""


class DigestMismatch(MirrorError):
    """The bytes hash to something else than their name."""

    permanent = False

    def __init__(self, wanted: Digest, got: Digest) -> None:
        self.wanted = wanted
        self.got = got
        super().__init__(f"digest mismatch: wanted {wanted}, got {got}")


class BadBundle(MirrorError):
    """A bundle or folder of models is not what it should be, or cannot be read or written."""


class FillBroken(MirrorError):
    """A fill was ended by something nobody foresaw; what is kept of it is what was recorded."""


class QueueError(MirrorError):
    """The queue of pulls could not do what was asked."""


class QueueFull(QueueError):
    """Too many models are queued; nothing was added."""


class QueueUnusable(QueueError):
    """The queue's database cannot be read or written."""


class AskedTooOften(QueueError):
    """One client has asked for as many models as it may in a day."""


class PullFailed(MirrorError):
    """A job that somebody waited for did not come to a good end."""


class NotDelivered(MirrorError):
    """A model is in the store, and could not be brought to an Ollama; another try may do it."""

    permanent = False


class NoSuchJob(QueueError):
    """Nothing of that name or id is queued."""


class DispatchError(MirrorError):
    """A request may not wait for its turn at a backend. ``user`` is whose it is."""

    def __init__(self, user: str, message: str) -> None:
        self.user = user
        super().__init__(message)


class TooManyWaiting(DispatchError):
    """As many wait as may: ``bound`` of this user where ``own``, else of all."""

    permanent = False

    def __init__(self, user: str, bound: int, *, own: bool) -> None:
        self.bound = bound
        self.own = own
        super().__init__(user, f"{bound} requests {'of this user ' if own else ''}are waiting already")


class UserBlocked(DispatchError):
    """The user's requests are not served until somebody unblocks the user."""

    def __init__(self, user: str) -> None:
        super().__init__(user, "this user is blocked")


class NotAllowed(MirrorError):
    """The policy refuses a model to who asks for it; the text names the rule."""


class Offline(MirrorError):
    """Not in the store, and the mirror is told not to ask upstream."""


class NowhereToRun(MirrorError):
    """No Ollama has the model that a request is for, or none that was not tried."""

    permanent = False


class AllDown(MirrorError):
    """No Ollama can be used; the text says why, of each."""

    permanent = False


class NoTurn(MirrorError):
    """A request waited for its turn for as long as it may."""

    permanent = False


class BackendError(MirrorError):
    """The Ollama behind the mirror did not do what was asked."""


class BackendDown(BackendError):
    """No connection to it, or, where it ``answered`` a connection, one that ended before its answer did."""

    permanent = False

    def __init__(self, message: str, *, answered: bool = True) -> None:
        self.answered = answered
        super().__init__(message)


class BackendRefused(BackendError):
    """It answered with an error; the text is its own. ``status`` is 200 where a stream of lines ended with one."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class ServerError(MirrorError):
    """A running mirror answered a command with an error; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)
