#!/usr/bin/env bash
# The sweep through Slurm, on this machine alone: starts a cluster of one node from Debian's packages, runs the
# targets (default: the r0 study with preset smoke) through Snakemake's Slurm executor, and takes the cluster down.
#   apt-get install slurm-wlm munge && python -m pip install -e ".[cluster]"
#   workflow/slurm_one_node.sh [target ...]      as root, on a machine without a Slurm of its own
# What it said last stands in workflow/slurm_one_node.log.
set -euo pipefail
cd "$(dirname "$0")/.."
node=$(hostname -s) place=/var/lib/slurm-one conf=/etc/slurm/slurm.conf

if [ -e "$conf" ] && ! grep -q "^ClusterName=one$" "$conf"; then
  echo "$conf belongs to another cluster; it is left alone" >&2
  exit 1
fi
mkdir -p /etc/slurm "$place/state" "$place/spool" /run/munge
chown munge: /run/munge
# Under this name only: the steps of a job do not inherit SLURM_CONF.
cat >"$conf" <<END
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmUser=root
SlurmdUser=root
ReturnToService=2
MpiDefault=none
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

down() {
  scontrol shutdown || true
  [ -e /run/munge/munged.pid ] && kill "$(cat /run/munge/munged.pid)"
}
runuser -u munge -- munged
trap down EXIT
slurmctld
slurmd
until sinfo --noheader --format %t | grep -q "idle\|mix\|alloc"; do sleep 1; done

# Without a database of accounts sacct knows nothing; squeue does, for MinJobAge seconds after a job's end.
timeout "${LIMIT:-7200}" snakemake --executor slurm --jobs "$(nproc)" \
  --slurm-status-command squeue --slurm-no-account --default-resources slurm_partition=debug mem_mb=1500 runtime=60 \
  --config preset=smoke --quiet rules -- "${@:-r0_sensitivity}" 2>&1 |
  sed "s#$PWD#.#g; s#\b$node\b#node#g; s#/[^ ]*/bin/##g; /Platform:/d; /User:/d"
