"""Who may write to the screen, and what goes to the log file."""

import io
import logging
import sys
import warnings

import pytest
from mmengine.logging import MMLogger

from mmkd.engine.console.screen import Screen, adopt, current_screen


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logger(tmp_path):
    name = str(tmp_path)
    yield MMLogger.get_instance(name, log_file=str(tmp_path / 'run.log'), file_mode='a')
    MMLogger._instance_dict.pop(name)


def test_prints_and_the_log_go_to_the_file(logger, tmp_path):
    stream = io.StringIO()
    stock = list(logger.handlers)
    with Screen(stream):
        print('printed before there is a file')
        adopt(logger)
        print('loading', end=' ')
        print('annotations')
        logger.info('a thousand lines')
        logger.warning('no objective listens')
        logger.warning('"FileClient" will be deprecated')
        logger.error('it is broken')
    assert stream.getvalue() == 'warning: no objective listens\nerror: it is broken\n'
    text = (tmp_path / 'run.log').read_text()
    for line in ('before there is', 'loading annotations', 'thousand', 'FileClient', 'broken'):
        assert text.count(line) == 1
    assert logger.handlers == stock


def test_standard_output_is_a_whole_text_stream(logger, tmp_path):
    with Screen(io.StringIO()):
        adopt(logger)
        print('tränen', flush=True)
        sys.stdout.buffer.write('bytés\n'.encode())
        assert not sys.stdout.isatty() and sys.stdout.encoding == 'utf-8'
        print('a last line', end='')
    text = (tmp_path / 'run.log').read_text(encoding='utf-8')
    assert [line for line in ('tränen', 'bytés', 'a last line') if line not in text] == []


def test_warnings_of_python(logger, tmp_path):
    stream = io.StringIO()
    with Screen(stream):
        adopt(logger)
        warnings.simplefilter('always')
        warnings.warn('two\n  lines', UserWarning, stacklevel=1)
        warnings.warn('soon', FutureWarning, stacklevel=1)
    assert stream.getvalue() == 'warning: two lines\n'
    assert 'FutureWarning at' in (tmp_path / 'run.log').read_text()


def test_a_logger_that_shows_errors_alone_stays_so(logger):
    logger.handlers[0].setLevel(logging.ERROR)
    stream = io.StringIO()
    with Screen(stream):
        adopt(logger).warning('hm')
    assert not stream.getvalue()


def test_outside_a_command_nothing_changes(logger):
    stock = list(logger.handlers)
    assert adopt(logger).handlers == stock
    assert current_screen() is not current_screen()


def test_other_ranks_are_silent(capsys):
    stream = io.StringIO()
    with Screen(stream, speaks=False) as screen:
        print('loading annotations')
        screen.say('a line')
        screen.show(1, 2, 'progress')
        warnings.warn('w', UserWarning, stacklevel=1)
    assert not stream.getvalue() and not screen.early


def test_progress_in_lines_and_in_place():
    stream = io.StringIO()
    with Screen(stream) as screen:
        for step in (1, 2):
            screen.show(step, 2, f'step {step}/2')
    assert stream.getvalue() == 'step 1/2\nstep 2/2\n'
    stream = Terminal()
    with Screen(stream) as screen:
        for step in (1, 2):
            screen.show(step, 2, f'step {step}/2')
            assert screen.progress.tasks[0].completed == step
        screen.say('validated')
        assert screen.progress.live._refresh_thread is None, 'workers are forked'
    assert stream.getvalue().count('step 2/2') >= 1 and 'validated' in stream.getvalue()
    assert screen.progress is None


@pytest.mark.parametrize('broken', ['closed', 'ascii'])
def test_a_screen_that_cannot_show_a_line_stops_no_training(broken):
    stream = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    if broken == 'closed':
        stream.close()
    screen = Screen(stream)
    screen.say('fünf – ±')
    screen.show(1, 2, 'fünf – ±')
    if broken == 'ascii':
        assert stream.buffer.getvalue().splitlines()[0] == b'f?nf ? ?'


def test_standard_output_is_given_back_after_an_error():
    stdout = sys.stdout
    with pytest.raises(KeyError), Screen(io.StringIO()):
        raise KeyError
    assert sys.stdout is stdout
