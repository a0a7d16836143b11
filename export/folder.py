"""A folder of an export: written as a whole, and never over something by accident."""

import tempfile
from pathlib import Path

from keras_muon.export.file_errors import writing
from keras_muon.export.manifest import FILE_NAME, Manifest, is_manifest


def write_together(folder: Path, files: dict[str, bytes], *, force: bool) -> Path:
    """Write the files of an export: beside the folder first, then by renaming.

    Args:
        folder: Where to; made if it is not there.
        files: Contents by name, the manifest last.
        force: Whether to replace an export that is there, its other graphs included.
            Files of other names stay.

    Returns:
        The folder.

    Raises:
        FileExistsError: If one of the files is there and `force` is False, if the
            manifest there is not of an export, or if the folder is a file.
        OSError: If the folder cannot be written.
    """
    with writing(f"`folder` {str(folder)!r}"):
        _refuse_what_is_there(folder, files, force)
        _write(folder, files)
    return folder


def _refuse_what_is_there(folder: Path, files: dict[str, bytes], force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file. Name a folder.")
    manifest = folder / FILE_NAME
    if manifest.exists() and not is_manifest(manifest):
        raise FileExistsError(
            f"{str(manifest)!r} is not of an export, so it is not replaced. Choose "
            "another folder."
        )
    present = [name for name in files if (folder / name).exists()]
    if present and not force:
        raise FileExistsError(
            f"{str(folder)!r} holds {present[0]!r} already. Choose another folder, or "
            "pass force=True to replace the export in it."
        )


def _write(folder: Path, files: dict[str, bytes]) -> None:
    stale = _graphs_of(folder) - files.keys()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as room:
        staged = Path(room) / "staged"
        staged.mkdir()
        for name, content in files.items():
            (staged / name).write_bytes(content)
        if not folder.exists():
            staged.rename(folder)
            return
        for name in files:
            (staged / name).replace(folder / name)
    for name in stale:
        (folder / name).unlink(missing_ok=True)


def _graphs_of(folder: Path) -> set[str]:
    """The graphs of the export in a folder; none if there is no readable one."""
    try:
        buckets = Manifest.read(folder).buckets
    except (FileNotFoundError, ValueError):
        return set()
    # Whatever a manifest says, nothing outside of the folder is touched.
    return {b.graph for b in buckets if Path(b.graph).name == b.graph}
