# Real brokers on loopback: examples/brokers/README.md.

BROKERS := examples/brokers/kafka/kafka.sh examples/brokers/rocketmq/rocketmq.sh

.PHONY: brokers brokers-fetch brokers-status brokers-stop brokers-kill brokers-wipe

# Starts what does not run: Kafka, and RocketMQ's name server and broker.
brokers: brokers-fetch
	@for b in $(BROKERS); do $$b start || exit 1; done

# Java, Maven and kcat where they are missing, and the jars that the poms pin;
# does nothing when they are there.
brokers-fetch:
	@mkdir -p .toolchains && echo '*' > .toolchains/.gitignore
	@examples/brokers/java.sh
	@for b in $(BROKERS); do $$b fetch || exit 1; done

# For tests: what cannot be had here is left out, and with CI=true an error.
.PHONY: brokers-prepare
brokers-prepare:
	@$(MAKE) --no-print-directory -s brokers-fetch || { test "$(CI)" != true && echo "tests with real brokers are left out: see above"; }

brokers-status:
	@for b in $(BROKERS); do $$b status || true; done

brokers-stop brokers-kill brokers-wipe: brokers-%:
	@for b in $(BROKERS); do $$b $* || exit 1; done
