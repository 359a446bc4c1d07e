"""Ask a MySQL server, and read what it answers, on the socket over which PyMySQL has logged in.

PyMySQL takes 15 us over each column of each result, rows or none, and as much over each row: as long as the
server takes over most of our statements. Here a column costs a look at one byte of what is said of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from pymysql.constants import COMMAND, FIELD_TYPE, SERVER_STATUS
from pymysql.err import InternalError, OperationalError

Row = tuple[Any, ...]
Rows = list[Row]
_Reader = Callable[[bytearray], Any]

_OK, _NULL, _LONG, _ERROR = 0x00, 0xFB, 0xFE, 0xFF
#: A packet of this size goes on in the next one.
LARGEST = 0xFFFFFF
_CHUNK = 64 * 1024
_MORE: Final[int] = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
#: Somebody has ended the query.
INTERRUPTED = 1317  # ER_QUERY_INTERRUPTED
_GONE = 2006  # CR_SERVER_GONE_ERROR
_LOST = 2013  # CR_SERVER_LOST
_MALFORMED = 2027  # CR_MALFORMED_PACKET
#: How columns are read; all others are texts, also those that are compared by their bytes.
_READERS: dict[int, _Reader] = {
    FIELD_TYPE.TINY: int,
    FIELD_TYPE.SHORT: int,
    FIELD_TYPE.INT24: int,
    FIELD_TYPE.LONG: int,
    FIELD_TYPE.LONGLONG: int,
    FIELD_TYPE.YEAR: int,
    FIELD_TYPE.FLOAT: float,
    FIELD_TYPE.DOUBLE: float,
    FIELD_TYPE.DECIMAL: lambda value: Decimal(value.decode()),
    FIELD_TYPE.NEWDECIMAL: lambda value: Decimal(value.decode()),
}


class Wire:
    """Queries and results of one connection.

    Attributes:
        status: What the server said last of the session (`SERVER_STATUS`).
    """

    def __init__(self, line: socket.socket, status: int) -> None:
        self._line = line
        self.status = status
        self._received = bytearray()
        self._at = 0  # what is before has been read
        self._number = 0  # of the next packet, of 256
        self._usable = True

    def ask(self, query: bytes) -> None:
        """Send a query, which may hold several statements.

        Raises:
            OperationalError: The connection is gone.
        """
        if not self._usable:
            raise OperationalError(_GONE, "the connection is closed")
        said = bytes((COMMAND.COM_QUERY,)) + query
        sizes = [min(LARGEST, len(said) - start) for start in range(0, len(said) + 1, LARGEST)]
        packets = [
            size.to_bytes(3, "little") + bytes((number % 256,)) + said[number * LARGEST :][:size]
            for number, size in enumerate(sizes)
        ]
        self._number = len(packets) & 0xFF
        self._usable = False  # until all of the answer has been read
        try:
            for packet in packets:
                self._line.sendall(packet)
        except OSError as error:
            raise OperationalError(_GONE, f"the server has gone away ({error})") from error

    def results(self) -> Iterator[Rows]:
        """Read the rows of each statement as they come; a statement that is no query has none.

        Raises:
            OperationalError: A statement failed, and those behind it have not been executed; or the
                connection is gone.
        """
        status = _MORE
        while status & _MORE:
            packet = self._packet()
            if packet[0] == _OK:
                rows: Rows = []
                _, at = _number(packet, 1)
                _, at = _number(packet, at)
                status = int.from_bytes(packet[at : at + 2], "little")
            else:
                rows, status = self._rows(_number(packet, 0)[0])
            self.status = status
            self._usable = not status & _MORE
            yield rows

    def is_interrupted(self) -> bool:
        """Read the rows of the last statement, and drop them; tell whether somebody has ended it.

        Raises:
            OperationalError: It failed for another reason, or the connection is gone.
        """
        ends = 0  # one behind the columns, and one behind the rows
        while ends < 2:
            packet = self._any_packet()
            if packet[0] == _ERROR:
                # No exception for what a listener waits for: that would take longer than all else it does.
                if int.from_bytes(packet[1:3], "little") != INTERRUPTED:
                    raise _failure(packet)
                return True
            if packet[0] == _LONG and len(packet) < 9:
                ends += 1
                self.status = int.from_bytes(packet[3:5], "little")
        self._usable = True
        return False

    def _rows(self, columns: int) -> tuple[Rows, int]:
        # The type stands before two bytes of flags, one of decimals and two that mean nothing.
        readers = [_READERS.get(self._packet()[-6], _text) for _ in range(columns)]
        self._packet()
        rows: Rows = []
        while True:
            packet = self._packet()
            if packet[0] == _LONG and len(packet) < 9:
                return rows, int.from_bytes(packet[3:5], "little")
            rows.append(_row(packet, readers))

    def _packet(self) -> bytearray:
        """Return the next packet.

        Raises:
            OperationalError: It tells of an error, or the connection is gone.
        """
        received, at = self._received, self._at
        begin = at + 4
        # As almost all of them: here, small, in its turn, and none of an error.
        if len(received) > begin and received[begin] != _ERROR and received[at + 3] == self._number:
            size = received[at] | received[at + 1] << 8 | received[at + 2] << 16
            end = begin + size
            if 0 < size < LARGEST and end <= len(received):
                self._at = end
                self._number = self._number + 1 & 0xFF
                return received[begin:end]
        packet = self._any_packet()
        if packet[0] == _ERROR:
            raise _failure(packet)
        return packet

    def _any_packet(self) -> bytearray:
        """Return the next packet, also one that tells of an error.

        Raises:
            OperationalError: The connection is gone.
        """
        packet, number, size = self._part()
        if packet.startswith(b"\xff"):  # also unasked: that the server ends
            self._usable = number == self._number
            return packet
        if number != self._number:
            raise InternalError(0, f"the server's packet {number} came in place of {self._number}")
        self._number = self._number + 1 & 0xFF
        while size == LARGEST:
            part, _, size = self._part()
            packet += part
            self._number = self._number + 1 & 0xFF
        if not packet:
            raise InternalError(_MALFORMED, "the server sent an empty packet")
        return packet

    def _part(self) -> tuple[bytearray, int, int]:
        """Return a packet as it came, its number, and its size."""
        if len(self._received) < self._at + 4:
            self._receive(4)
        received, at = self._received, self._at
        size = received[at] | received[at + 1] << 8 | received[at + 2] << 16
        end = at + 4 + size
        if len(received) < end:
            self._receive(4 + size)
            at, end = 0, 4 + size
        self._at = end
        return received[at + 4 : end], received[at + 3], size

    def _receive(self, size: int) -> None:
        """Receive until so many bytes are there, and put them first."""
        del self._received[: self._at]
        self._at = 0
        while len(self._received) < size:
            try:
                chunk = self._line.recv(max(_CHUNK, size - len(self._received)))
            except OSError as error:
                raise OperationalError(_LOST, f"the server said nothing more ({error})") from error
            if not chunk:
                raise OperationalError(_LOST, "the server has closed the connection")
            self._received += chunk


def _row(packet: bytearray, readers: list[_Reader]) -> Row:
    row: list[Any] = []
    at = 0
    for reader in readers:
        size = packet[at]
        if size < _NULL:
            at += 1
        elif size == _NULL:
            row.append(None)
            at += 1
            continue
        else:
            size, at = _number(packet, at)
        end = at + size
        row.append(reader(packet[at:end]))
        at = end
    return tuple(row)


def _number(packet: bytearray, at: int) -> tuple[int, int]:
    """Read a number of as many bytes as its first one says; return it, and where it ends."""
    first = packet[at]
    if first < _NULL:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, _LONG: 8}.get(first)
    if size is None:  # the server wants a file of ours
        raise InternalError(_MALFORMED, f"the server sent {first:#x} in place of a length")
    end = at + 1 + size
    return int.from_bytes(packet[at + 1 : end], "little"), end


def _text(value: bytearray) -> str:
    return value.decode()


def _failure(packet: bytearray) -> OperationalError:
    # Before it can know how we speak, the server says no state.
    said = packet[9:] if packet.startswith(b"#", 3) else packet[3:]
    return OperationalError(int.from_bytes(packet[1:3], "little"), said.decode(errors="replace"))
