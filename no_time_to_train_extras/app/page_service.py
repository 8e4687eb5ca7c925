"""The addresses of ``serve`` next to the page: programs get what the page would find in their images."""

from collections.abc import Mapping

from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train_extras.app.video_tracks import SharingSegmenter
from no_time_to_train_extras.app.workspace import Workspace
from no_time_to_train_extras.server.compute_queue import ComputeQueue
from no_time_to_train_extras.server.http_api import build_api
from no_time_to_train_extras.server.request_guard import Metrics, RequestGuard
from no_time_to_train_extras.server.serve_command import MEGABYTES, QUEUE
from no_time_to_train_extras.server.service import Service


class PageService(Service):
    """The networks of an app, with the memory and the thresholds that its page has when a request comes.

    The memory of the app itself stays as it is, and the networks compute for one of both at a time.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, networks = workspace, workspace.search.networks
        segmenter = SharingSegmenter(workspace.segmenter, networks)
        super().__init__(segmenter, {}, workspace.score, ComputeQueue(QUEUE), networks)

    def known(self) -> Mapping[str, MemoryBank]:
        """The memory of the page, called ``page``; nothing before the first class."""
        memory = self.workspace.segmenter.memory
        return {} if memory is None else {"page": memory}

    def lowest(self, memory: MemoryBank) -> dict[str, float]:
        """The threshold of each class as on the page."""
        thresholds = self.workspace.thresholds
        return {one.name: thresholds.of(one.name) for one in memory.categories}

    def guarded(self, host: str, token: str | None) -> RequestGuard:
        """The addresses, behind the checks of ``serve``."""
        metrics = Metrics()
        return RequestGuard(build_api(self, metrics), host, token, MEGABYTES * 10**6, metrics)
