#!/bin/sh
# send.sh KEY BODY: posts an order to the flow `shop`, signed; again, with the
# same key, while the node is away or says 503.
sign=$(printf %s "$2" | openssl dgst -sha256 -hmac made-up | sed 's/.*= *//')
exec curl -s --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:7070/v1/ingest/default/shop \
	-H "Idempotency-Key: $1" -H "X-Sign: $sign" --data-binary "$2"
