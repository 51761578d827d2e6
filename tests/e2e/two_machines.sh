#!/bin/bash
# Run a command on two machines: `two_machines.sh namespaces|loopback COMMAND`. In COMMAND, RANK is the number of the
# machine and ADDRESS the address of the first. Each namespace has a network of its own, and ends with the script, which
# must run under `unshare -rnm`.
set -euo pipefail
command=$2
case $1 in
namespaces)
  address=10.9.0.1 second=(ip netns exec second)
  mount -t tmpfs none /run && mkdir /run/netns
  ip netns add second
  ip link set lo up
  ip link add first0 type veth peer name second0 netns second
  ip addr add 10.9.0.1/24 dev first0 && ip link set first0 up
  ip -n second addr add 10.9.0.2/24 dev second0 && ip -n second link set second0 up
  ip -n second link set lo up
  ;;
loopback) address=127.0.0.1 second=(env) ;;
esac
command=${command//ADDRESS/$address}
"${second[@]}" bash -c "${command//RANK/1}" &
bash -c "${command//RANK/0}"
wait $!
