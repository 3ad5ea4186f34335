"""Where a database file lies."""

from taskqueue.sqlite.file import NETWORK, filesystem_type


def test_filesystem_type_is_that_of_the_innermost_mount(tmp_path):
    mounts = (
        "/dev/vda / ext4 rw 0 0\n"
        f"server:/data {tmp_path} nfs4 rw 0 0\n"
        f"tmpfs {tmp_path}/a\\040b tmpfs rw 0 0\n"
        "broken line\n"
    )
    assert filesystem_type(tmp_path, mounts) in NETWORK
    assert filesystem_type(tmp_path / "a b" / "c", mounts) == "tmpfs"
    assert filesystem_type(tmp_path.parent, mounts) == "ext4"
    assert filesystem_type(tmp_path.with_name(tmp_path.name + "x"), mounts) == "ext4"
    assert filesystem_type(tmp_path, "") == ""
