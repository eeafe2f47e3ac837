"""What is logged arrives once, in order, whatever happens to the server or the process."""

from __future__ import annotations

import hashlib
import json
import os
import signal

import pytest

POINTS = """
with platform.training_run(name="count") as run:
    for number in range({count}):
        run.log_metrics({{"number": number}})
"""


def numbers(store):
    return [value for _, value in store.series().get("number", [])]


def test_points_arrive_once_in_order_and_the_spool_is_empty_afterwards(script, store, online):
    _, err = script(POINTS.format(count=20_000), **online)
    assert numbers(store) == list(range(20_000))
    assert [step for step, _ in store.series()["number"]] == list(range(20_000))
    assert [record["k"] for record in store.records() if record["k"] != "points"] == ["open", "close"]
    assert script.leftovers() == [] and err == ""


@pytest.mark.parametrize("fault", ["drop_answers", "cut_before", "fail"])
def test_an_answer_that_is_dropped_or_refused_doubles_and_loses_nothing(script, store, online, fault):
    setattr(store, fault, 3)
    script(POINTS.format(count=5000), PLATFORM_DRAIN_SECONDS=20, **online)
    script.sync(store)
    assert getattr(store, fault) == 0
    assert numbers(store) == list(range(5000))
    assert script.leftovers() == []


def test_a_version_whose_answer_was_dropped_is_asked_for(script, store, online):
    store.drop_answers = 1
    out, _ = script(
        """
        with platform.training_run() as run:
            print(run.register_model({"weights": [1]}, "dict-model", framework="pickle").version)
        """,
        **online,
    )
    assert out.strip() == "1" and len(store.models["dict-model"]) == 1


def test_a_slow_server_does_not_slow_the_loop_and_the_end_is_bounded(script, store, online):
    store.delay.clear()
    out, err = script(
        """
        import time
        run = platform.training_run()
        start = time.monotonic()
        for number in range(10_000):
            run.log_metrics({"number": number})
        print(time.monotonic() - start)
        start = time.monotonic()
        run.close()
        print(time.monotonic() - start)
        """,
        PLATFORM_DRAIN_SECONDS=1,
        **online,
    )
    logged, closed = map(float, out.split())
    assert logged < 1.0 and 0.9 < closed < 3.0
    assert "engineersofai_platform sync" in err
    store.delay.set()
    assert script.sync(store).returncode == 0
    assert numbers(store) == list(range(10_000))


def test_without_a_server_a_run_is_kept_and_sync_sends_it_once(script, store):
    _, err = script(POINTS.format(count=100))
    assert err.count("no server configured") == 1 and "engineersofai_platform sync" in err
    first = script.sync(store)
    assert first.returncode == 0 and "records sent" in first.stdout
    assert script.leftovers() == []
    assert "nothing to send" in script.sync(store).stdout
    assert numbers(store) == list(range(100))


def test_a_dead_server_is_said_once_and_never_waited_for(script, store, online):
    store.close()
    out, err = script(
        """
        import time
        for name in ("one", "two", "three"):
            run = platform.training_run(name)
            run.log_metrics({"number": 1})
            start = time.monotonic()
            run.close()
            print(time.monotonic() - start)
        """,
        **online,
    )
    assert all(float(line) < 2.0 for line in out.split())
    assert err.count("does not answer") == 1
    assert err.count("engineersofai_platform sync") == 3


def test_a_wrong_token_is_said_once_and_the_run_goes_on_offline(script, store, online):
    _, err = script(POINTS.format(count=10), **{**online, "PLATFORM_TOKEN": "wrong"})
    assert err.count("refused the token") == 1 and "platform login" in err
    assert (
        script.module("engineersofai_platform", "sync", PLATFORM_URL=store.url, PLATFORM_TOKEN="wrong").returncode == 3
    )
    assert script.sync(store).returncode == 0 and numbers(store) == list(range(10))


def test_client_json_is_used_when_no_variable_is_set(script, store, online):
    (script.folder / "home").mkdir()
    text = json.dumps({"url": store.url, "token": online["PLATFORM_TOKEN"]})
    (script.folder / "home" / "client.json").write_text(text)
    script(POINTS.format(count=3))
    assert numbers(store) == [0, 1, 2]


def test_a_process_killed_with_sigkill_keeps_what_it_had_flushed(script, store):
    process = script.start(
        """
        import os, time
        run = platform.training_run(name="victim")
        for number in range(3000):
            run.log_metrics({"number": number})
        run.log_params({"flushed": True})
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    assert process.stdout.readline() == "ready\n"
    live = script.sync(store)
    assert live.returncode == 0 and numbers(store) == list(range(3000))
    assert store.records(kind="close") == [], "a live process is not ended by sync"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    segment = next(script.spool.glob("*/w-*/0*.ndjson"))
    with segment.open("ab") as file:
        file.write(b'{"s":99,"k":"poi')
    assert script.sync(store).returncode == 0
    assert numbers(store) == list(range(3000))
    (close,) = store.records(kind="close")
    assert close["status"] == "failed" and "without closing" in close["error"]
    assert script.leftovers() == []


def test_a_store_that_knows_less_than_the_watermark_file_gets_the_rest(script, store):
    script(POINTS.format(count=10))
    writer = next(script.spool.glob("*/w-*"))
    (writer / "watermark").write_text("2")
    assert script.sync(store).returncode == 0
    assert numbers(store) == list(range(10))


def test_a_bad_record_is_answered_and_does_not_block_those_behind_it(script, store):
    script(POINTS.format(count=10))
    segment = next(script.spool.glob("*/w-*/0*.ndjson"))
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1:1] = [b'{"s":2,"k":"strange"}\n']
    lines = [
        line.replace(b'{"s":%d,' % place, b'{"s":%d,' % (place + 1)) if place > 1 else line
        for place, line in enumerate(lines)
    ]
    segment.write_bytes(b"".join(lines))
    result = script.sync(store)
    assert result.returncode == 1 and "unknown kind" in result.stderr
    assert numbers(store) == list(range(10))


@pytest.mark.parametrize("why", ["hidden", "foreign"])
def test_a_run_that_is_refused_does_not_hold_up_the_others(script, store, online, why):
    foreign = "local-" + "0" * 26
    getattr(store, why).add(foreign)
    _, err = script(
        f"""
        with platform.training_run(resume={foreign!r}) as run:
            run.log_metrics({{"number": -1}})
        """
        + POINTS.format(count=10).replace("\n", "\n        "),
        **online,
    )
    assert err.count("refused its records") == 1 and numbers(store) == list(range(10))
    result = script.sync(store)
    assert result.returncode == 1 and foreign in result.stderr
    assert any(path.startswith(foreign) for path in script.leftovers())


def test_segments_rotate_and_are_deleted_once_delivered(script, store, online):
    script(
        """
        from engineersofai_platform import _journal
        _journal.SEGMENT_BYTES = 20_000
        with platform.training_run() as run:
            for number in range(20_000):
                run.log_metrics({"number": number})
                if number % 1000 == 0:
                    run.log_params({"at": number})
        """
    )
    assert len(list(script.spool.glob("*/w-*/0*.ndjson"))) > 10
    script.sync(store)
    assert numbers(store) == list(range(20_000)) and script.leftovers() == []


def test_a_full_disk_keeps_training_and_loses_nothing_below_the_bound(script, store):
    out, err = script(
        """
        import errno, os, time
        run = platform.training_run()
        write = os.write
        def full(descriptor, content):
            if descriptor > 2:
                write(descriptor, content[:7])
                raise OSError(errno.ENOSPC, "no space")
            return write(descriptor, content)
        os.write = full
        for number in range(5000):
            run.log_metrics({"number": number})
        run.log_params({"during": 1})
        os.write = write
        run.log_metrics({"number": 5000})
        run.close()
        """
    )
    assert err.count("no space left on device") == 1 and "can be written again" in err
    script.sync(store)
    assert numbers(store) == list(range(5001))


def test_above_the_bound_a_full_disk_drops_the_newest_and_says_how_many(script):
    _, err = script(
        """
        import errno, os
        from engineersofai_platform import _recorder
        _recorder.WAITING_POINTS = 10_000
        run = platform.training_run()
        def full(descriptor, content):
            raise OSError(errno.ENOSPC, "no space")
        os.write = full
        for number in range(50_000):
            run.log_metrics({"number": number})
        run.close()
        """
    )
    assert "were lost because" in err and "PLATFORM_SPOOL" in err


def test_a_home_that_cannot_be_written_falls_back_to_the_temporary_folder(script, store):
    (script.folder / "home").write_text("a file where a folder should be")
    _, err = script(POINTS.format(count=5), TMPDIR=script.folder)
    assert "cannot write to" in err
    (spool,) = script.folder.glob("engineersofai-platform-*/spool")
    assert list(spool.glob("local-*/w-*/closed"))


def test_inside_a_platform_run_nothing_is_sent_by_the_sdk(script, store, online):
    spool = script.folder / "agent-spool"
    script(
        POINTS.format(count=5),
        PLATFORM_RUN_ID="run-17",
        PLATFORM_SPOOL=spool,
        PLATFORM_SENDER="agent",
        **online,
    )
    assert store.posts == 0
    (segment,) = spool.glob("run-17/w-*/00000001.ndjson")
    assert (segment.parent / "closed").exists()
    kinds = [json.loads(line)["k"] for line in segment.read_text().splitlines()]
    assert kinds == ["open", "points", "close"]


def test_under_an_agent_the_version_is_read_from_its_answers(script):
    spool = script.folder / "agent-spool"
    process = script.start(
        """
        with platform.training_run() as run:
            print(run.register_model([1], "list-model", framework="pickle").version)
        """,
        PLATFORM_RUN_ID="run-3",
        PLATFORM_SPOOL=spool,
        PLATFORM_SENDER="agent",
    )
    answered = False
    while process.poll() is None and not answered:
        for segment in spool.glob("run-3/w-*/00000001.ndjson"):
            for line in segment.read_text().splitlines():
                record = json.loads(line)
                if record["k"] == "model":
                    answer = {"sequence": record["s"], "model": "list-model", "version": 4}
                    (segment.parent / "results.ndjson").write_text(json.dumps(answer) + "\n")
                    answered = True
    assert process.communicate()[0].strip() == "4"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_for_itself_and_does_not_end_the_run(script, store, online):
    script(
        """
        import os, sys
        run = platform.training_run()
        run.log_metrics({"parent": 1.0})
        child = os.fork()
        if child == 0:
            for number in range(100):
                run.log_metrics({"child": number})
            sys.exit(0)
        os.waitpid(child, 0)
        run.log_metrics({"parent": 2.0})
        run.close()
        """,
        **online,
    )
    script.sync(store)
    series = store.series()
    assert [value for _, value in series["parent"]] == [1.0, 2.0]
    assert [value for _, value in series["child"]] == list(range(100))
    assert len(store.runs()) == 1 and len(store.writers) == 2
    assert len(store.records(kind="close")) == 1


def test_children_of_multiprocessing_lose_nothing(script, store, online):
    script(
        """
        import multiprocessing

        def work(rank):
            for number in range(50):
                run.log_metrics({f"rank{rank}": number})

        if __name__ == "__main__":
            run = platform.training_run()
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=work, args=(rank,)) for rank in range(3)]
            [child.start() for child in children]
            [child.join() for child in children]
            run.close()
        """,
        **online,
    )
    script.sync(store)
    series = store.series()
    for rank in range(3):
        assert [value for _, value in series[f"rank{rank}"]] == list(range(50))


def test_eight_threads_log_without_loss(script, store, online):
    script(
        """
        import threading
        with platform.training_run() as run:
            def work(name):
                for number in range(5000):
                    run.log_metrics({name: number, "shared": 1.0})
            threads = [threading.Thread(target=work, args=(f"t{place}",)) for place in range(8)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        """,
        PLATFORM_DRAIN_SECONDS=20,
        **online,
    )
    series = store.series()
    for place in range(8):
        assert [value for _, value in series[f"t{place}"]] == list(range(5000))
    assert [step for step, _ in series["shared"]] == list(range(40_000))


def test_a_million_points_pass_in_bounded_memory(script, store, online):
    out, _ = script(
        """
        import resource
        with platform.training_run() as run:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for number in range(1_000_000):
                run.log_metrics({"number": 0.5})
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """,
        PLATFORM_DRAIN_SECONDS=40,
        **online,
    )
    assert len(numbers(store)) == 1_000_000
    assert int(out) < 100, "MiB"


def test_what_can_never_be_sent_is_told_of_and_everything_behind_it_arrives(script, store):
    run = script.spool / ("local-" + "0" * 26)
    journal, files = run / "w-0123456789abcdef" / "00000001.ndjson", run / "files"
    journal.parent.mkdir(parents=True)
    files.mkdir()
    damaged, good = "a" * 64, hashlib.sha256(b"good").hexdigest()
    (files / damaged).write_bytes(b"other bytes")
    (files / good).write_bytes(b"good")
    artifact = '{{"s":{},"k":"artifact","path":"{}","sha256":"{}","size_bytes":1}}'
    lines = [
        '{"s":1,"k":"open","name":"n","tags":{},"parent":null,"started_us":1,"context":{}}',
        "garbage",
        '{"k":"tags","tags":{}}',
        artifact.format(2, "damaged", damaged),
        artifact.format(3, "good", good),
        "\0\0\0damaged",
        '{"s":5,"k":"tags","tags":{"a":"b"}}',
        '{"s":900,"k":"tags","tags":{"never":"b"}}',
        '{"s":6,"k":"close","status":"finished","error":null,"ended_us":2}',
    ]
    journal.write_text("\n".join(lines) + "\n")
    result = script.sync(store)
    assert result.returncode == 1, result.stderr
    kinds = [record["k"] for record in store.records()]
    assert kinds == ["open", "lost", "artifact", "lost", "tags", "close"]
    assert [record["s"] for record in store.records()] == [1, 2, 3, 4, 5, 6]
    assert good in store.blobs and damaged not in store.blobs
    for told in ("no sequence: b'garbage'", "'damaged' were refused", "records 4 to 4", "sequence 900"):
        assert result.stderr.count(told) == 1, (told, result.stderr)


def test_a_damaged_number_on_the_last_line_swallows_nothing_that_is_written_later(tmp_path, store):
    from store import TOKEN

    from engineersofai_platform._http import Client
    from engineersofai_platform._settings import Server
    from engineersofai_platform._shipping import Shipment

    folder = tmp_path / ("local-" + "0" * 26) / "w-0123456789abcdef"
    folder.mkdir(parents=True)
    client = Client(Server(store.url, TOKEN))
    shipment = Shipment(str(folder))

    def delivered(segment, *sequences):
        with open(folder / f"{segment:08d}.ndjson", "a") as file:
            file.writelines(f'{{"s":{sequence},"k":"tags","tags":{{}}}}\n' for sequence in sequences)
        while shipment.step(client):
            pass
        return [(record["s"], record["k"]) for record in store.records()]

    kept = [(1, "tags"), (2, "tags"), (3, "tags")]
    assert delivered(1, 1, 2, 3, 400_000) == kept, "it waits"
    kept += [(4, "lost"), (5, "tags"), (6, "tags")]
    assert delivered(2, 5, 6) == kept
    assert shipment.refused == 2, "the damaged line, and the record that stood in it"
    # A gap that nothing follows is told of when nothing more can come.
    assert delivered(2, 8) == kept
    (folder / "closed").touch()
    assert delivered(2) == [*kept, (7, "lost"), (8, "tags")]
    client.close()


def test_the_names_of_a_journal_are_on_the_disk_before_anything_is_written_into_it(tmp_path, monkeypatch):
    from engineersofai_platform import _journal

    happened = []
    fsync, write = os.fsync, os.write
    place = lambda descriptor: os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda descriptor: (happened.append(place(descriptor)), fsync(descriptor))[1])
    monkeypatch.setattr(
        os, "write", lambda descriptor, content: (happened.append("written"), write(descriptor, content))[1]
    )
    monkeypatch.setattr(_journal, "SEGMENT_BYTES", 10)
    journal = _journal.Journal(str(tmp_path / "spool"), "run-1")
    writer = f"spool/run-1/{journal.writer}"
    journal.append(['"k":"tags","tags":{}'])
    assert happened == [writer, "spool/run-1", "spool", ".", "written", f"{writer}/00000001.ndjson"]
    happened.clear()
    journal.append(['"k":"tags","tags":{}'])
    assert happened == [writer, "written", f"{writer}/00000002.ndjson"], "the names above are there already"
    happened.clear()
    journal.close()
    assert happened == [writer], "the marker"
