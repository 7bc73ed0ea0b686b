"""Real servers on this machine: the programs are found, started, watched until they are ready, and stopped."""

from lezea_mlops.servers.mlflow import MlflowServer
from lezea_mlops.servers.mongod import Mongod, find_mongod
from lezea_mlops.servers.process import ServerError
from lezea_mlops.servers.replica_set import User
from lezea_mlops.servers.server import Server

__all__ = ["MlflowServer", "Mongod", "Server", "ServerError", "User", "find_mongod"]
