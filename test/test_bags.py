"""Bags whole, cut, damaged and of every kind: what is read of them, what is said to be lost, and no traceback."""

import os
import shutil
import sqlite3
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags.rosbag2")
from bag_files import IMAGE, START, picture, write_bag, write_ros1  # noqa: E402

from hmr_ros.io.bags import INFO_TYPE, Bag, image_messages, is_bag  # noqa: E402
from hmr_ros.io.report import ReadReport  # noqa: E402


def read(path, topic=""):
    """The numbers of the pictures, and the report."""
    report = ReadReport()
    messages = [message for message in image_messages(path, topic, report) if message.type != INFO_TYPE]
    return [int(message.picture()[0, 0, 0]) - 10 for message in messages], report


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


WHOLE = [("mcap", ""), ("mcap", "storage"), ("mcap", "message"), ("mcap", "file"), ("sqlite", ""), ("sqlite", "message"), ("sqlite", "file")]


@pytest.mark.parametrize("plugin, compression", WHOLE)
@pytest.mark.parametrize("what", ["folder", "folder without metadata", "file", "file without suffix"])
def test_every_kind_of_whole_bag_is_read(tmp_path, plugin, compression, what):
    path = write_bag(tmp_path / "bag", plugin=plugin, compression=compression, other=["/words"])
    if what == "folder without metadata":
        (path.parent / "metadata.yaml").unlink()
    if what == "file without suffix":
        path = path.rename(tmp_path / "recorded")
    path = path.parent if what.startswith("folder") else path
    assert is_bag(path)
    numbers, report = read(path)
    assert numbers == [0, 1, 2, 3, 4] and (report.promised, report.read, report.exit_code) == (5, 5, 0), report
    assert report.skipped == {} and report.unit == "images"
    assert ("no metadata.yaml" in report.line()) == (what == "folder without metadata")


def test_a_ros_1_bag_is_read_as_a_rosbag2_is(tmp_path):
    path = write_ros1(tmp_path / "walk.bag")
    assert is_bag(path)
    numbers, report = read(path)
    assert numbers == [0, 1, 2, 3, 4] and (report.promised, report.exit_code) == (5, 0)
    image, info = list(image_messages(path))[:2]
    assert (image.type, info.type) == (IMAGE, INFO_TYPE) and image.stamp == info.stamp == START
    assert image.decoded().header.frame_id == "eye"
    np.testing.assert_array_equal(info.decoded().k, np.arange(9.0))
    np.testing.assert_array_equal(image.picture(), picture(0))


def test_files_of_a_bag_without_metadata_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for i in range(11):
        write_bag(tmp_path / f"b{i}", count=1, start=i, plugin="sqlite" if i == 3 else "mcap").rename(folder / f"walk_{i}.{'db3' if i == 3 else 'mcap'}")
    numbers, report = read(folder)
    assert numbers == list(range(11)) and report.exit_code == 0
    shutil.copy(folder / "walk_5.mcap", folder / "walk_5.mcap.zstd")  # the copy is not read
    assert read(folder)[0] == numbers


# ---- cut and damaged ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin, compression", WHOLE)
def test_a_cut_recording_gives_what_is_there_and_says_what_is_lost(tmp_path, plugin, compression):
    path = write_bag(tmp_path / "bag", count=30, size=(64, 48), plugin=plugin, compression=compression)
    if compression:  # these pictures are compressed too well for a cut in their middle
        path = write_noise(tmp_path / "noise", plugin, compression)
    cut(path)
    report = ReadReport()
    messages = list(image_messages(path.parent, report=report))
    assert 3 <= len(messages) < 30 and report.read == len(messages)
    assert report.promised == 30 and report.exit_code == 1  # by metadata.yaml
    for message in messages:
        message.picture()
    (path.parent / "metadata.yaml").unlink()
    alone = ReadReport()
    again = list(image_messages(path, report=alone))
    assert [m.raw for m in again] == [m.raw for m in messages] and alone.exit_code == 1
    assert alone.skipped and alone.promised in (None, 30)
    assert "\n" not in alone.line() and ("cut" in alone.line() or "damaged" in alone.line())


def write_noise(folder, plugin, compression):
    """30 images in chunks that do not become smaller."""
    from bag_files import STORE, header
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP if plugin == "mcap" else StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/eye/image", IMAGE, typestore=STORE)
        for i in range(30):
            noise = np.random.default_rng(i).integers(0, 256, 64 * 1024 * 3, dtype=np.uint8)
            message = STORE.types[IMAGE](header(STORE, START + i), 64, 1024, "bgr8", 0, 3072, noise)
            writer.write(connection, START + i, bytes(STORE.serialize_cdr(message, IMAGE)))
    return next(path for path in folder.iterdir() if path.name != "metadata.yaml")


def test_of_a_split_bag_a_damaged_file_costs_only_its_own_images(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for i in range(3):
        write_bag(tmp_path / f"b{i}", start=5 * i).rename(folder / f"walk_{i}.mcap")
    (folder / "walk_1.mcap").write_bytes(b"")
    numbers, report = read(folder)
    assert numbers == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14] and report.exit_code == 1
    assert list(report.skipped) == ["walk_1.mcap"] and "an empty file" in report.skipped["walk_1.mcap"]


def test_a_damaged_chunk_ends_the_reading_and_what_came_before_is_kept(tmp_path):
    path = write_noise(tmp_path / "bag", "mcap", "storage")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    content[len(content) // 2 - 200_000 : len(content) // 2] = bytes(200_000)
    path.write_bytes(content)
    report = ReadReport()
    count = sum(1 for _ in image_messages(path, report=report))
    assert 0 < count < 30 and (report.promised, report.read, report.exit_code) == (30, count, 1)
    assert "it is damaged" in report.skipped[path.name]


def test_an_index_that_is_gone_costs_nothing(tmp_path):
    path = write_bag(tmp_path / "bag")
    path.write_bytes(path.read_bytes()[:-37] + b"\x02\x14" + bytes(27) + b"\x89MCAP0\r\n")  # a footer without a summary
    numbers, report = read(path)
    assert numbers == [0, 1, 2, 3, 4] and report.exit_code == 0 and "without its index" in report.line()


def test_a_recording_without_chunks_is_read_though_its_topics_are_interleaved(tmp_path):
    path = write_bag(tmp_path / "bag", times=[START + i * 10**8 for i in (0, 2, 1, 4, 3)])
    chunk = read_chunk(path)

    def record(operation, content):
        return struct.pack("<BQ", operation, len(content)) + content

    magic, head = b"\x89MCAP0\r\n", record(1, struct.pack("<I", 4) + b"ros2" + struct.pack("<I", 0))
    data = magic + head + chunk + record(0x0F, bytes(4))
    statistics = record(0x0B, struct.pack("<QHIIIIQQIHQ", 5, 1, 1, 0, 0, 0, START, START + 4 * 10**8, 10, 1, 5))
    path.write_bytes(data + definitions(chunk) + statistics + record(2, struct.pack("<QQI", len(data), 0, 0)) + magic)
    numbers, report = read(path)
    assert numbers == [0, 1, 2, 3, 4] and (report.promised, report.exit_code) == (5, 0), report


def read_chunk(path):
    """The content of the only chunk of an uncompressed MCAP file."""
    content = path.read_bytes()
    at = 8 + 9 + struct.unpack_from("<Q", content, 9)[0]
    operation, _, _, _, size, _, name = struct.unpack_from("<BQQQQII", content, at)
    assert (operation, name) == (6, 0)
    begin = at + 9 + 8 + 8 + 8 + 4 + 4 + 8
    return content[begin : begin + size]


def definitions(chunk):
    """The schema and channel that stand before the first message."""
    at = 0
    while chunk[at] != 5:
        at += 9 + struct.unpack_from("<Q", chunk, at + 1)[0]
    return chunk[:at]


def test_messages_in_a_write_ahead_log_are_reported(tmp_path):
    path = write_bag(tmp_path / "bag", plugin="sqlite")
    path.with_name(path.name + "-wal").write_bytes(b"something")
    _, report = read(path)
    assert report.exit_code == 1 and "wal_checkpoint" in report.line()


def test_what_is_no_message_is_skipped_and_the_others_are_read(tmp_path):
    path = write_bag(tmp_path / "bag", plugin="sqlite")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE messages SET data = x'0001' WHERE id = 2")
        database.execute("UPDATE messages SET data = 100000000000 WHERE id = 3")
    database.close()
    numbers, report = read(path)
    assert numbers == [0, 3, 4] and (report.promised, report.read, report.exit_code) == (5, 3, 1)
    assert any("2 bytes, expected sensor_msgs/msg/Image" in why for why in report.skipped.values())


def test_a_topic_whose_name_is_no_text_is_no_topic(tmp_path):
    path = write_bag(tmp_path / "bag", plugin="sqlite", topics=("/a/image", "/b/image"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE topics SET name = CAST(name AS BLOB) WHERE id = 1")
    database.close()
    with Bag(path) as bag:
        assert bag.topic == "/b/image"


def test_a_message_that_belongs_to_no_topic_is_lost(tmp_path):
    path = write_bag(tmp_path / "bag", plugin="sqlite")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE messages SET topic_id = 99 WHERE id = 2")
    database.close()
    numbers, report = read(path)
    assert numbers == [0, 2, 3, 4] and report.exit_code == 1 and "it counts 5 messages, but 4 by topics" in report.line()


# ---- errors that name the right thing -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.mcap", "x.db3", "x.bag", "x.mcap.zstd", "x.db3.zstd"])
@pytest.mark.parametrize("content, words", [(b"", "an empty file"), (b"garbage" * 99, "starting 67 61 72 62")])
def test_a_file_without_a_recording_is_one_precise_line(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    assert is_bag(path)
    with pytest.raises(ValueError) as error:
        read(path)
    assert f"{name} is no recording" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("head", [b"\x89MCAP0\r\n", b"SQLite format 3\0", b"#ROSBAG V2.0\n", b"\x28\xb5\x2f\xfd"])
def test_garbage_behind_a_magic_is_one_line(tmp_path, head):
    path = tmp_path / "x"
    path.write_bytes(head + b"topics messages" + bytes(range(256)) * 20)
    assert is_bag(path)
    with pytest.raises(ValueError, match="x .*(damaged|no recording|no image topic)") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_ros_1_bag_that_is_cut_is_told_so(tmp_path):
    path = write_ros1(tmp_path / "walk.bag")
    cut(path)
    with pytest.raises(ValueError, match=r"walk.bag is a damaged ROS 1 bag .*rosbag reindex"):
        read(path)


@pytest.mark.parametrize("content, words", [
    (b"", "0 bytes that are no table"),
    (b"{[", "Error"),
    (b"rosbag2_bagfile_information: {version: 9}", "no relative_file_paths"),
    (b"rosbag2_bagfile_information: [1, 2]", ""),
    (b"\xff\xfe\x00garbage", ""),
])  # fmt: skip
def test_damaged_metadata_costs_nothing_and_is_said(tmp_path, content, words):
    path = write_bag(tmp_path / "bag")
    (path.parent / "metadata.yaml").write_bytes(content)
    numbers, report = read(path.parent)
    assert numbers == [0, 1, 2, 3, 4] and report.exit_code == 0
    assert "metadata.yaml is damaged" in report.line() and words in report.line() and "\n" not in report.line()
    path.unlink()
    with pytest.raises(ValueError, match="metadata.yaml is damaged .*beside it are no files with .mcap"):
        read(path.parent)


def test_metadata_of_a_later_version_is_read(tmp_path):
    path = write_bag(tmp_path / "bag")
    metadata = path.parent / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("version: 9", "version: 12"))
    assert read(path.parent)[0] == [0, 1, 2, 3, 4]


def test_files_that_metadata_names_and_are_not_there_are_lost(tmp_path):
    path = write_bag(tmp_path / "bag")
    metadata = path.parent / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    _, report = read(path.parent)
    assert report.exit_code == 1 and report.skipped == {"bag_1.mcap": "metadata.yaml names it, but it is not there"}
    path.unlink()
    with pytest.raises(ValueError, match="no file that can be read: bag.mcap .metadata.yaml names it, but it is not there"):
        read(path.parent)


def test_a_renamed_recording_is_read(tmp_path):
    path = write_bag(tmp_path / "bag")
    path.rename(path.with_name("kitchen.mcap"))
    numbers, report = read(path.parent)
    assert numbers == [0, 1, 2, 3, 4] and report.exit_code == 0 and "kitchen.mcap" in report.line()


def test_topics_are_told_apart_in_words(tmp_path):
    path = write_bag(tmp_path / "bag", topics=("/a/image", "/b/image"), other=("/words",))
    for topic, words in {
        "": "has these image topics: /a/image, /b/image; expected one image topic, choose one with --topic",
        "/c": "has these image topics: /a/image, /b/image; expected topic /c, choose one with --topic",
        "/words": "topic /words of bag .* has type std_msgs/msg/String, expected sensor_msgs/msg/Image or .*; its image topics: /a/image, /b/image",
    }.items():
        with pytest.raises(ValueError, match=words):
            read(path, topic)
    assert read(path, "/b/image")[0] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"has no image topic, expected .*; its topics: /words \(std_msgs/msg/String\)"):
        read(write_bag(tmp_path / "words", topics=(), other=("/words",)))
    with pytest.raises(ValueError, match="topic /eye/image of bag .* holds no messages, expected images"):
        read(write_bag(tmp_path / "silent", count=0))


@pytest.mark.parametrize("plugin", ["mcap", "sqlite"])
def test_a_name_is_no_pattern_no_address_and_no_text(tmp_path, plugin):
    path = write_bag(tmp_path / "bag", plugin=plugin)
    odd = tmp_path / os.fsdecode(b"caf\xe9 [red] 100%41 #1?mode=rwc \xf0\x9f\x98\x80") / path.name
    odd.parent.mkdir()
    path.rename(odd)
    assert read(odd)[0] == [0, 1, 2, 3, 4] and read(odd.parent)[0] == [0, 1, 2, 3, 4]
    cut(odd)
    report = ReadReport()
    try:
        list(image_messages(odd, report=report))
    except ValueError as error:
        str(error).encode()
    report.line().encode()
    with pytest.raises(ValueError, match=r"caf\\xe9 \[red\] 100%41 #1\?mode=rwc") as error:
        read(odd, "/nothing")
    assert str(error.value).encode()


def test_what_is_a_bag_is_told_by_content(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE songs (id INTEGER)")
    database.close()
    assert not any(map(is_bag, (tmp_path / "pictures", tmp_path / "pictures" / "a.png", other, tmp_path / "absent", tmp_path)))


# ---- any damage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    bags = [write_bag(folder / f"{plugin}-{mode or 'plain'}", plugin=plugin, compression=mode).read_bytes() for plugin, mode in WHOLE]
    return [*bags, write_ros1(folder / "one.bag").read_bytes()]


edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=3)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, len(WHOLE)), edits=edits, share=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_no_damage_is_a_crash_a_wait_or_a_silent_loss(bags, tmp_path, number, edits, share):
    content = bytearray(bags[number])
    for place, new in edits:
        at = int(place * len(content))
        content[at : at + len(new)] = new[: len(content) - at]
    path = tmp_path / "recorded"
    path.write_bytes(content[: int(share * len(content))])
    is_bag(path)
    report = ReadReport()
    try:
        messages = list(image_messages(path, report=report))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    images = [message for message in messages if message.type != INFO_TYPE]
    assert report.read == len(images) <= 5 and "\n" not in report.line()
    assert len(images) == 5 or report.exit_code > 0, report


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits, share=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_no_damage_of_metadata_is_a_crash_or_a_loss(tmp_path_factory, edits, share):
    folder = tmp_path_factory.mktemp("bag")
    path = write_bag(folder / "bag").parent / "metadata.yaml"
    content = bytearray(path.read_bytes())
    for place, new in edits:
        at = int(place * len(content))
        content[at : at + len(new)] = new[: len(content) - at]
    path.write_bytes(content[: int(share * len(content))])
    report = ReadReport()
    images = list(image_messages(path.parent, report=report))
    assert len(images) == report.read == 5 and "\n" not in report.line()


def test_an_open_bag_can_be_read_again(tmp_path):
    with Bag(write_bag(tmp_path / "bag").parent) as bag:
        assert [m.raw for m in bag.messages()] == [m.raw for m in bag.messages()]
        assert (bag.topic, bag.type, bag.promised, bag.has_infos) == ("/eye/image", IMAGE, 5, False)
