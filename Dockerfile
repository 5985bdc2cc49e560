# One image for both services, the standing audit and the console: docker run IMAGE run appointment
ARG BASE=python:3.13-slim

FROM $BASE AS dependencies
RUN python -m venv --without-pip /venv
COPY requirements.txt .
RUN pip --python /venv/bin/python install --no-cache-dir --require-hashes --no-deps -r requirements.txt

FROM dependencies AS product
WORKDIR /build
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
# Into a tree of its own, so that new code is one small layer above the dependencies.
RUN pip --python /venv/bin/python install --no-cache-dir --no-deps --no-build-isolation --no-index --prefix /product .

FROM $BASE
RUN useradd --system --uid 10001 --no-create-home clinic && install -d -o clinic /data
COPY --from=dependencies /venv /venv
COPY --from=product /product /venv
ENV PATH=/venv/bin:$PATH \
    CLINIC_DATA_DIR=/data \
    CLINIC_APPOINTMENT_HOST=0.0.0.0 CLINIC_APPOINTMENT_PORT=8000 \
    CLINIC_FINANCIAL_HOST=0.0.0.0 CLINIC_FINANCIAL_PORT=8001 \
    CLINIC_AUDIT_HOST=0.0.0.0 CLINIC_AUDIT_PORT=8011 \
    CLINIC_CONSOLE_HOST=0.0.0.0 CLINIC_CONSOLE_PORT=8080
USER clinic
WORKDIR /data
EXPOSE 8000 8001 8011 8080
# Asks the service, audit or console that the command names, or both services where it names none.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD python -c "\
from os import environ; from urllib.request import ProxyHandler, build_opener; \
both = {'appointment', 'financial'}; \
named = {'audit', 'console', *both}.intersection(open('/proc/1/cmdline').read().split('\0')); \
ports = [environ['CLINIC_' + name.upper() + '_PORT'] for name in named or both]; \
ask = build_opener(ProxyHandler({})).open; \
[ask('http://127.0.0.1:' + port + '/health/ready', timeout=3) for port in ports]"
ENTRYPOINT ["clinic"]
CMD ["run"]
