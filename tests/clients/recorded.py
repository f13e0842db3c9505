#!/usr/bin/env python3
"""Publishes a recorded file row by row with paho at QoS 1 and compares what the node has with the file and with DuckDB.

usage: recorded.py FILE MQTT_HOST:PORT HTTP_HOST:PORT
"""
import csv
import datetime
import json
import math
import sys
import threading
import urllib.parse
import urllib.request

import duckdb
import paho.mqtt.client as mqtt

path, mqtt_addr, http_addr = sys.argv[1:4]
host, port = mqtt_addr.rsplit(":", 1)


def get(path_and_query):
    with urllib.request.urlopen(f"http://{http_addr}{path_and_query}") as answer:
        return json.load(answer)


def rows_of(answer, key):
    return answer if isinstance(answer, list) else answer[key]


rows = list(csv.DictReader(open(path)))
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="machine", protocol=mqtt.MQTTv5)
client.max_inflight_messages_set(100)
acked, done = set(), threading.Event()


def on_publish(_client, _userdata, mid, reason, _properties):
    assert not reason.is_failure, reason
    acked.add(mid)
    if len(acked) == len(rows):
        done.set()


client.on_publish = on_publish
client.connect(host, int(port))
client.loop_start()
for row in rows:
    payload = json.dumps({"ts": row["timestamp"], "temperature": float(row["value"])})
    client.publish("devices/machine/telemetry", payload, qos=1)
assert done.wait(120), f"only {len(acked)} of {len(rows)} acknowledged"
# An event long after the end lets the last windows close.
end = datetime.datetime.fromisoformat(rows[-1]["timestamp"]) + datetime.timedelta(days=1)
client.publish("devices/machine/telemetry", json.dumps({"ts": str(end), "closing": 1}), qos=1).wait_for_publish(30)
client.loop_stop()

# Stored whole: count and sum are the file's.
query = urllib.parse.urlencode({
    "device_id": "machine", "metric": "temperature", "start": "2013-01-01T00:00:00Z", "end": "2015-01-01T00:00:00Z", "limit": 1000000,
})
points = get(f"/v1/query?{query}")["points"]
values = [float(row["value"]) for row in rows]
assert len(points) == len(rows), (len(points), len(rows))
assert math.fsum(value for _, value in points) == math.fsum(values)

# Hourly windows are what DuckDB computes from the file.
duck = duckdb.sql(f"""
    select epoch_ms(date_trunc('hour', timestamp)) as start, count(*), sum(value), min(value), max(value), avg(value)
    from read_csv('{path}') group by 1 order by 1
""").fetchall()
panes = rows_of(get("/v1/windows/hourly?key=machine&limit=100000"), "panes")
ours = {pane["start"]: pane["metrics"]["temperature"] for pane in panes if "temperature" in pane["metrics"]}
assert len(ours) == len(duck), (len(ours), len(duck))
for start, count, total, least, most, mean in duck:
    pane = ours[start]
    assert pane["count"] == count and pane["min"] == least and pane["max"] == most, (start, pane)
    assert math.isclose(pane["sum"], total, rel_tol=1e-12) and math.isclose(pane["mean"], mean, rel_tol=1e-12), (start, pane)

# The rule fires in the failure of February 2014.
alerts = rows_of(get("/v1/alerts?limit=1000"), "alerts")
fired = [alert for alert in alerts if alert["rule"] == "machine-failure" and alert["state"] in ("firing", "resolved")]
february = datetime.datetime(2014, 2, 1, tzinfo=datetime.timezone.utc).timestamp()


def epoch(value):
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    return value / (1e9 if value > 1e17 else 1e3)


times = sorted(epoch(alert["since"]) for alert in fired)
assert any(time > february for time in times), (february, times, alerts[:3])
print(f"{len(points)} readings, {len(duck)} hourly windows, {len(fired)} alerts, in February: "
      f"{[str(datetime.datetime.fromtimestamp(time, datetime.timezone.utc)) for time in times if time > february]}")
