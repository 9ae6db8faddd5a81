from scan_bundler.progress import Progress, progress_of


def test_the_first_message_goes_out_at_once() -> None:
    progress, message = Progress().update(progress_of("s", 1, 10)).take(now=5.0)

    assert message is not None
    assert (message.value, message.max_value, message.done) == (1.0, 10.0, False)
    assert progress.due() is None


def test_within_the_interval_the_latest_value_waits() -> None:
    progress, _ = Progress().update(progress_of("s", 1, 10)).take(now=5.0)
    progress, early = progress.update(progress_of("s", 2, 10)).update(progress_of("s", 3, 10)).take(now=5.05)

    assert early is None
    assert progress.due() == 5.1
    _, message = progress.take(now=5.1)
    assert message is not None
    assert message.value == 3.0


def test_the_end_does_not_wait_and_is_not_replaced() -> None:
    progress, _ = Progress().update(progress_of("s", 1, None)).take(now=5.0)
    progress = progress.update(progress_of("s", 4, None, done=True)).update(progress_of("t", 1, None))

    _, message = progress.take(now=5.01)

    assert message is not None
    assert (message.scan_id, message.done, message.max_value) == ("s", True, 0.0)
