"""What a run or a search left must be on the list of artifacts."""


def assert_all_are_listed(folder):
    """Sees each entry of a folder named by an artifact."""
    names = {artifact.relative.split("/")[0] for artifact in folder.list_artifacts()}
    assert {entry.name for entry in folder.path.iterdir()} <= names
