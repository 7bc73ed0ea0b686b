"""Real servers on this machine: the programs are found, started, watched until they are ready, and stopped."""

from lezea_mlops.servers.mongod import Mongod, find_mongod
from lezea_mlops.servers.process import ServerError
from lezea_mlops.servers.replica_set import User

__all__ = ["Mongod", "ServerError", "User", "find_mongod"]
