"""The app without a page: waiting for its search."""

from collections.abc import Callable

from no_time_to_train_extras.app.workspace import Workspace


def settle(workspace: Workspace) -> None:
    """Wait until all photos, and what is looked at, are ranked with the present memory, and what follows is done."""
    if workspace.search.thread.ident is None:
        workspace.search.start()
    wait_for(workspace, workspace.search.is_settled)


def wait_for(workspace: Workspace, happened: Callable[[], object]) -> None:
    with workspace.search.state:
        assert workspace.search.state.wait_for(happened, 120)
