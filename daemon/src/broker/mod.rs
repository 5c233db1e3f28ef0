//! All that knows AMQP 0-9-1: dialling, topology, consumers, settling by tag, confirmed copies, delay queues.
