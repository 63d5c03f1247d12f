"""`python -m grafana`: write the dashboards' JSON."""

from grafana.files import write

write()
