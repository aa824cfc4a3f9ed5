"""Models carried by hand: into one tar, and out of a tar or of a folder that Ollama keeps.

Touches the store, the file a bundle is saved to, and the folder an import is told of; never the network.
"""

from mirror.bundles.bundle import Bundle
from mirror.bundles.contents import read_since
from mirror.bundles.folder_import import import_folder
from mirror.bundles.intake import Imported, Promise, Reserve
from mirror.bundles.members import Member, Members
from mirror.bundles.saving import Report, kept_prefix, save
from mirror.bundles.tar_import import import_tar

__all__ = [
    "Bundle",
    "Imported",
    "Member",
    "Members",
    "Promise",
    "Report",
    "Reserve",
    "import_folder",
    "import_tar",
    "kept_prefix",
    "read_since",
    "save",
]
