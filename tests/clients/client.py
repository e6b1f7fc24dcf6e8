"""A client of tests/clients.mjs in Python, over its standard library.

    python3 tests/clients/client.py URL

Prints a line of JSON for each event and each retry, and {"closed": true} once it is answered other
than with a stream. It reads lines as they come and reconnects with Last-Event-ID after the time that
it was told, as the HTML standard has it. Its lines end in LF alone, the only end that is sent here.
"""

import http.client
import json
import sys
import time
import urllib.parse


def show(**what):
    print(json.dumps(what), flush=True)


class Client:
    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        self.last_id = ""
        self.retry = 3.0

    def read(self, lines):
        """Shows the events of one stream; one that was cut off before its empty line counts for nothing."""
        event_id, event, data = self.last_id, "", []
        for line in lines:
            line = line.decode()
            if not line.endswith("\n"):
                return
            line = line[:-1]
            if not line:
                self.last_id = event_id
                if data:
                    show(id=event_id, event=event or "message", data="\n".join(data))
                event, data = "", []
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                event = value
            elif field == "id" and "\0" not in value:
                event_id = value
            elif field == "retry" and value.isascii() and value.isdigit():
                self.retry = int(value) / 1000
                show(retry=int(value))

    def connect(self):
        """One connection, from its request to its end; returns whether to come back."""
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        fields = {"Accept": "text/event-stream"}
        if self.last_id:
            fields["Last-Event-ID"] = self.last_id
        try:
            connection.request("GET", self.url.path, headers=fields)
            answer = connection.getresponse()
            if answer.status != 200:
                return False
            self.read(answer)
        except (OSError, http.client.HTTPException):
            pass  # turned away, or cut off: the same as an end
        finally:
            connection.close()
        return True


client = Client(sys.argv[1])
while client.connect():
    time.sleep(client.retry)
show(closed=True)
